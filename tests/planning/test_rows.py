"""Rows that linears multiply at named shapes, as the model itself has them there."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.errors import UsageProblem
from onnxq.planning.rows import rows_at
from tests.graphs import model_of

LANGUAGE = """g (int64[batch, sequence] ids) => (float[batch, 1, 32] y)
    <int64[1] last = {-1}, int64[1] end = {9223372036854775807}, int64[1] axis = {1}> {
    h = Gather(table, ids) t = MatMul(h, w) l = Slice(t, last, end, axis) y = MatMul(l, head) }"""
VISION = """g (float[batch, 3, height, width] pixels) => (float[batch, n, 8] y)
    <int64[3] flat = {0, 8, -1}> {
    p = Conv<strides = [4, 4]>(pixels, patch) f = Reshape(p, flat) t = Transpose<perm = [0, 2, 1]>(f)
    y = MatMul(t, v) }"""


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


ARRAYS = {"table": floats(2, 16), "w": floats(16, 16), "head": floats(16, 32)}


def test_a_head_that_looks_at_the_last_token_has_one_row_a_sample() -> None:
    cases = ({"ids": (8, 128)}, {"batch": (3,), "sequence": (1,)})
    assert rows_at(model_of(LANGUAGE, **ARRAYS), cases) == {"h": (1024, 3), "l": (8, 3)}


def test_an_image_has_as_many_rows_as_patches() -> None:
    model = model_of(VISION, patch=floats(8, 3, 4, 4), v=floats(8, 8))
    assert rows_at(model, ({"pixels": (2, 3, 16, 20)},)) == {"t": (40,)}


def test_an_input_that_a_linear_reads_is_counted_too() -> None:
    model = model_of("g (float[N, L, 16] x) => (float[N, L, 16] y) { y = MatMul(x, w) }", w=floats(16, 16))
    assert rows_at(model, ({"x": (5, 7, 16)}, {"L": (9,)})) == {"x": (35, 9)}


def test_where_nothing_is_named_nothing_is_known() -> None:
    model = model_of(LANGUAGE, **ARRAYS)
    assert rows_at(model, ({},)) == {}
    assert rows_at(model, ({}, {"ids": (1, 4)})) == {"h": (4,), "l": (1,)}


def test_a_shape_that_fits_no_input_is_refused() -> None:
    with pytest.raises(UsageProblem, match="no input named 'words'"):
        rows_at(model_of(LANGUAGE, **ARRAYS), ({"words": (1, 4)},))

"""Which element type holds every value of another, tried on all values."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.clean.drop_casts import _FLOATING, _WHOLE, DropCasts, holds_every
from onnxq.passes.clean.evidence import graph
from tests.passes.clean.rewriting import assert_same_bits, ops_of, read, rewrite

T = ir.DataType
TYPES = [*_WHOLE, *_FLOATING]


def every_value(kind: ir.DataType) -> np.ndarray:
    """All values of a type of 16 bits or less; for wider ones those where significands and ranges end."""
    dtype = np.dtype(kind.numpy())
    if kind == T.BOOL:
        return np.array([False, True])
    if dtype.itemsize <= 2:
        bits = np.arange(2 ** (8 * dtype.itemsize), dtype=np.uint32).astype(f"u{dtype.itemsize}")
        values = bits.view(dtype)
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return values[np.isfinite(values.astype(np.float64))]
    if kind in _WHOLE:
        limits = np.iinfo(dtype)
        return np.array([limits.min, limits.max, limits.max - 1, 2**24 + 1, 2**31 - 1, 5], dtype)
    limits = np.finfo(dtype)
    return np.array([limits.max, limits.tiny, 1 + limits.eps, -1 - limits.eps], dtype)


@pytest.mark.parametrize(("narrow", "wide"), list(itertools.product(TYPES, TYPES)), ids=str)
def test_holding_is_what_the_values_say(narrow, wide):
    values = every_value(narrow)
    with np.errstate(all="ignore"):
        there = values.astype(wide.numpy())
        same = _exact(values) == _exact(there)
    assert holds_every(wide, narrow) == bool(same.all())


def _exact(values: np.ndarray) -> np.ndarray:
    """In a type that holds every 64-bit integer and every double: 64 bits of significand."""
    wide = values if values.dtype.kind in "biu" else values.astype(np.float64)
    return wide.astype(np.longdouble)


def test_a_chain_of_exact_casts_collapses_from_both_ends():
    text = graph(
        "a = Cast<to = 1>(x)  b = Cast<to = 11>(a)  c = Cast<to = 1>(b)  d = Cast<to = 10>(c)  y = Neg(d)",
        "float16[N,4] x",
        "float16[N,4] y",
        constants="float[N,4] a, double[N,4] b, float[N,4] c, float16[N,4] d",
    )
    before = read(text)
    after = rewrite(DropCasts(), before).model
    assert ops_of(after) == ["Neg"]
    assert_same_bits(before, after)


def test_a_first_cast_that_others_read_stays_for_them():
    text = graph(
        "a = Cast<to = 11>(x)  b = Cast<to = 1>(a)  y = Relu(b)  z = Neg(a)",
        outputs="float[N,4] y, double[N,4] z",
        constants="double[N,4] a, float[N,4] b",
    )
    before = read(text)
    after = rewrite(DropCasts(), before).model
    assert sorted(ops_of(after)) == ["Cast", "Neg", "Relu"]
    assert_same_bits(before, after)

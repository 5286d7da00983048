"""Copies with constants off by one rounding: they run, and they say what rounding does."""

from __future__ import annotations

import numpy as np

from onnxq.verify.shaken import shaken
from tests.graphs import model_of, outputs_of

UNIT = 2.0**-23


def weighed(weights: np.ndarray):
    return model_of("g (float[n,32] x) => (float[n,32] y) { y = MatMul(x, w) }", w=weights)


def moved_by(weights: np.ndarray, x: np.ndarray, seed: int) -> np.ndarray:
    usual = outputs_of(weighed(weights), {"x": x})["y"].astype(np.float64)
    return np.abs(outputs_of(shaken(weighed(weights), seed), {"x": x})["y"] - usual)


def test_sizes_stay_so_that_a_model_that_enlarges_pictures_still_runs():
    scales = np.array([1, 1, 2, 2], np.float32)
    for written in (
        model_of(
            "g (float[n,1,2,2] x) => (float[n,1,4,4] y) { h = Mul(x, g) y = Resize(h, , s) }",
            g=np.array([3.0, 5.0], np.float32),
            s=scales,
        ),
        model_of(
            """g (float[n,1,2,2] x) => (float[n,1,4,4] y) {
                s = Constant<value = float[4] {1, 1, 2, 2}>() h = Mul(x, g) y = Resize(h, , s)
            }""",
            g=np.array([3.0, 5.0], np.float32),
        ),
    ):
        x = np.ones((1, 1, 2, 2), np.float32)
        usual, other = (outputs_of(model, {"x": x})["y"] for model in (written, shaken(written)))
        assert 0 < np.abs(usual - other).max() <= 8 * UNIT


def test_errors_of_a_column_do_not_cancel():
    """Signs by turns are alike for all weights of a column: behind a difference nothing is seen of them."""
    differences = np.where(np.arange(32) % 2, np.float32(-1), np.float32(1))[None]
    off = moved_by(np.ones((32, 32), np.float32), differences, 0) / UNIT
    assert 1 <= np.median(off) < 16


def test_seeds_are_other_copies_and_one_seed_is_one_copy():
    random = np.random.default_rng(0)
    weights, x = random.standard_normal((32, 32)).astype(np.float32), random.standard_normal((4, 32))
    found = [moved_by(weights, x.astype(np.float32), seed) for seed in (0, 1, 0)]
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])

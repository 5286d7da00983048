"""Grids hold what they are made for, and cut ranges pay."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.quantize.rounding import Grid, round_nearest
from onnxq.passes.quantize.weights import symmetric_grid


def weight_of(rows: int = 50, columns: int = 6, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_t(4, size=(rows, columns)) * 10 ** random.uniform(-2, 2, columns)


def error(weight: np.ndarray, grid: Grid) -> np.ndarray:
    return (weight - grid.values(round_nearest(weight, grid))) ** 2


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_number_is_within_half_a_step_of_its_grid(bits):
    weight = weight_of()
    grid = symmetric_grid(weight, bits)
    assert grid.scale.dtype == np.float32
    off = np.abs(weight - grid.values(round_nearest(weight, grid)))
    assert (off <= 0.50005 * grid.scale).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_cut_range_lowers_the_error_of_every_column(bits):
    weight = weight_of(200)
    wide = error(weight, symmetric_grid(weight, bits)).sum(axis=0)
    cut = error(weight, symmetric_grid(weight, bits, weight_range="mse")).sum(axis=0)
    assert (cut <= wide).all()
    assert cut.sum() < 0.9 * wide.sum()


def test_rows_of_importance_are_what_a_cut_range_spares():
    weight = weight_of(200)
    importance = np.ones(200)
    importance[np.abs(weight).argmax(axis=0)] = 1e6
    spared = symmetric_grid(weight, 4, weight_range="mse", importance=importance)
    even = symmetric_grid(weight, 4, weight_range="mse")
    heavy = importance > 1
    assert error(weight, spared)[heavy].sum() < error(weight, even)[heavy].sum()
    assert error(weight, spared)[~heavy].sum() > error(weight, even)[~heavy].sum()


def test_a_column_keeps_the_least_scale_it_is_given_however_far_it_is_cut():
    weight = weight_of()
    least = np.full(6, 10.0)
    for weight_range in ("minmax", "mse"):
        grid = symmetric_grid(weight, 4, weight_range=weight_range, least_scale=least)
        assert (grid.scale >= 10).all()


@pytest.mark.parametrize("weight_range", ["minmax", "mse"])
def test_zero_is_exact_and_columns_of_zeros_stay_zero(weight_range):
    weight = weight_of() + 40
    weight[:, 2] = 0
    weight[7] = 0
    grid = symmetric_grid(weight, 4, weight_range=weight_range)
    values = grid.values(round_nearest(weight, grid))
    assert (values[7] == 0).all()
    assert (values[:, 2] == 0).all()


def test_weights_in_half_precision_have_the_grid_of_their_values():
    weight = weight_of().astype(np.float16)
    found, wanted = symmetric_grid(weight), symmetric_grid(weight.astype(np.float64))
    np.testing.assert_array_equal(found.scale, wanted.scale)

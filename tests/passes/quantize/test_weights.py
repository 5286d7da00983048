"""Grids hold what they are made for, and cut ranges pay."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.quantize.rounding import Grid, feed_back, round_nearest
from onnxq.passes.quantize.weights import asymmetric_grid, symmetric_grid


def weight_of(rows: int = 50, columns: int = 6, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_t(4, size=(rows, columns)) * 10 ** random.uniform(-2, 2, columns)


def error(weight: np.ndarray, grid: Grid) -> np.ndarray:
    return (weight - grid.values(round_nearest(weight, grid))) ** 2


@pytest.mark.parametrize("group", [0, 16, 64])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("make", [symmetric_grid, asymmetric_grid])
def test_every_number_is_within_half_a_step_of_its_grid(make, bits, group):
    weight = weight_of()
    grid = make(weight, bits, group=group)
    assert grid.scale.dtype == np.float32
    assert len(grid.scale) == (1 if group in (0, 64) else 4)
    steps = grid.scale[grid.groups_of(50)].astype(np.float64)
    off = np.abs(weight - grid.values(round_nearest(weight, grid)))
    slack = (
        1.0 if make is asymmetric_grid else 0.5
    )  # a zero point in whole codes moves one end by half a step
    assert (off <= slack * 1.0001 * steps).all()


@pytest.mark.parametrize("make", [symmetric_grid, asymmetric_grid])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_cut_range_lowers_the_error_of_every_column(make, bits):
    weight = weight_of(200)
    wide = error(weight, make(weight, bits)).sum(axis=0)
    cut = error(weight, make(weight, bits, weight_range="mse")).sum(axis=0)
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


@pytest.mark.parametrize("make", [symmetric_grid, asymmetric_grid])
def test_zero_is_exact_and_columns_of_zeros_stay_zero(make):
    weight = weight_of() + 40
    weight[:, 2] = 0
    weight[7] = 0
    grid = make(weight, 4, group=10)
    values = grid.values(round_nearest(weight, grid))
    assert (values[7] == 0).all()
    assert (values[:, 2] == 0).all()


def test_grids_serve_feedback_group_by_group():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 64)) @ random.normal(size=(64, 64))
    weight, gram = weight_of(64), x.T @ x
    grid = asymmetric_grid(weight, 4, group=16)
    fixed = feed_back(weight, gram, grid)
    moved = feed_back(weight, gram, grid, regrid=lambda rows: asymmetric_grid(rows, 4))
    nearest = weight - grid.values(round_nearest(weight, grid))
    for found in (fixed, moved):
        wrong = weight - found.values
        assert np.trace(wrong.T @ gram @ wrong) < 0.6 * np.trace(nearest.T @ gram @ nearest)

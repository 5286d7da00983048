"""From statistics to a grid: zero is on it, what was asked for is in it, clipping is done where it pays."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxq.passes.quantize.ranges import choose_range, least_squares_range, params_for
from onnxq.passes.quantize.rounding import round_nearest
from onnxq.passes.quantize.weights import quantize_weight, symmetric_grid
from onnxq.statistics import ChannelExtremes, Histogram, Statistic, TensorStatistics

numbers = st.floats(-1e30, 1e30, allow_nan=False)


def seen(values: np.ndarray) -> TensorStatistics:
    return TensorStatistics.of(values.reshape(-1, 1).astype(np.float32), {Statistic.HISTOGRAM})


def error_on(values: np.ndarray, low: float, high: float) -> float:
    return float(((params_for(low, high).apply(values) - values) ** 2).sum())


@given(numbers, numbers)
def test_the_grid_holds_zero_and_both_ends(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    params = params_for(low, high)
    assert (params.scale.dtype, params.zero_point.dtype) == (np.float32, np.uint8)
    assert params.scale > 0
    assert params.apply(np.float32(0.0)) == 0.0
    if max(high, 0) - min(low, 0) > 1e-30:
        for end in (low, high):
            assert abs(params.apply(np.float64(end)) - end) <= 1.001 * params.scale


@pytest.mark.parametrize("ends", [(0.0, 0.0), (-0.0, 0.0), (0.0, 1e-44), (-1e-45, 0.0)])
def test_a_tensor_of_zeros_has_a_grid(ends: tuple[float, float]) -> None:
    assert params_for(*ends).scale == 1.0
    assert params_for(*ends).zero_point == 0


def test_extremes_of_float32_do_not_overflow() -> None:
    params = params_for(-3.4e38, 3.4e38)
    assert np.isfinite(params.scale)
    assert 127 <= params.zero_point <= 128


@pytest.mark.parametrize("one_sided", [1, -1])
def test_a_one_sided_tensor_uses_all_levels(one_sided: int) -> None:
    params = params_for(*sorted((one_sided * 2.0, one_sided * 5.0)))
    assert params.zero_point == (0 if one_sided > 0 else 255)
    assert params.scale == np.float32(5 / 255)


def test_the_grid_rounds_as_the_runtime_does() -> None:
    params = params_for(-1.0, 1.55)
    exact = np.array([0.004, -0.006, 0.015, 9.0, -9.0])
    codes = np.clip(np.rint(exact / 0.01) + 100, 0, 255)
    np.testing.assert_allclose(params.apply(exact), (codes - 100) * 0.01, rtol=1e-6)


def test_minmax_takes_any_kind_of_extremes() -> None:
    values = np.array([-3.0, 1.0, 7.0])
    by_channel = TensorStatistics(3, channel=ChannelExtremes(np.array([-3.0, 0.0]), np.array([2.0, 7.0])))
    assert choose_range(by_channel, "minmax", 99.9) == (-3.0, 7.0)
    assert choose_range(seen(values), "minmax", 99.9) == (-3.0, 7.0)


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_other_methods_need_a_histogram(method: str) -> None:
    by_channel = TensorStatistics(3, channel=ChannelExtremes(np.zeros(2), np.ones(2)))
    with pytest.raises(ValueError, match="needs a histogram"):
        choose_range(by_channel, method, 99.9)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_a_margin_widens_every_range(method: str) -> None:
    statistics = seen(np.random.default_rng(0).normal(size=5000))
    low, high = choose_range(statistics, method, 99.0)
    wide_low, wide_high = choose_range(statistics, method, 99.0, 0.25)
    assert (wide_low, wide_high) == pytest.approx((1.25 * low, 1.25 * high))


def test_a_percentile_cuts_its_share_off_each_side() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 100_000)
    low, high = choose_range(seen(values), "percentile", 99.0)
    assert low == pytest.approx(-0.96, abs=0.01)
    assert high == pytest.approx(2.96, abs=0.01)
    assert choose_range(seen(values), "percentile", 100.0) == pytest.approx((values.min(), values.max()))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(1, 1000),
    st.integers(0, 20),
    st.sampled_from(["both", "high", "low"]),
)
def test_least_squares_is_never_worse_than_minmax(seed: int, reach: float, count: int, side: str) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=4000)
    signs = {"both": random.choice([-1, 1], count), "high": 1, "low": -1}[side]
    values[:count] = signs * reach * random.uniform(0.5, 1, count)
    values = values.astype(np.float32)
    low, high = least_squares_range(Histogram.of(values))
    assert low <= 0 <= high
    assert values.min() <= low
    assert high <= values.max()
    # The search sees bins, of which there are many for each step of the grid.
    assert error_on(values, low, high) <= 1.02 * error_on(values, float(values.min()), float(values.max()))


@pytest.mark.parametrize("outliers", [(40.0,), (-40.0,), (40.0, -25.0)])
def test_least_squares_clips_lone_outliers_on_their_side(outliers: tuple[float, ...]) -> None:
    values = np.random.default_rng(0).normal(size=1_000_000)
    values[: len(outliers)] = outliers
    low, high = choose_range(seen(values), "mse", 0)
    assert low > -20 if min(outliers) < 0 else -6 < low < -3
    assert high < 20 if max(outliers) > 0 else 3 < high < 6
    assert error_on(values, low, high) < 0.6 * error_on(values, values.min(), values.max())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 8]), st.floats(-35, 35))
def test_weights_stay_in_their_bits_and_half_a_step_off(seed: int, bits: int, magnitude: float) -> None:
    random = np.random.default_rng(seed)
    weight = random.normal(size=(9, 5)) * 10**magnitude * 10 ** random.uniform(-2, 2, 5)
    assume(np.abs(weight).max() < 3e38)
    weight = weight.astype(np.float32)
    found = quantize_weight(weight, bits)
    top = {7: 63, 8: 127}[bits]
    assert (found.codes.dtype, found.scale.dtype) == (np.int8, np.float32)
    assert np.abs(found.codes.astype(int)).max() <= top
    reached = np.abs(found.codes.astype(int)).max(axis=0)
    used = np.abs(weight).max(axis=0) / top > np.finfo(np.float32).tiny
    assert (reached[used] == top).all(), "each column uses its whole range"
    error = np.abs(found.codes * found.scale.astype(np.float64) - weight)
    assert (error[:, used] <= 0.5001 * found.scale[used]).all()


def test_a_table_is_rounded_in_less_room_than_it_takes() -> None:
    """Its copies in float64 once took six times the table of a vocabulary, where memory is at its peak."""
    table = np.random.default_rng(0).normal(size=(20_000, 96)).astype(np.float32)
    tracemalloc.start()
    try:
        found = quantize_weight(table.T, least_scale=1e-3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * table.nbytes
    grid = symmetric_grid(table.T, least_scale=1e-3)
    np.testing.assert_array_equal(found.scale, grid.scale[0])
    np.testing.assert_array_equal(found.codes, round_nearest(table.T, grid))


def test_columns_of_zeros_stay_zero() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    weight[:, 1] = 0
    found = quantize_weight(weight)
    assert found.scale[1] == 1.0
    np.testing.assert_array_equal(found.values[:, 1], 0)
    assert (quantize_weight(np.zeros((4, 3))).values == 0).all()
    assert quantize_weight(np.zeros((0, 3))).scale.tolist() == [1, 1, 1]

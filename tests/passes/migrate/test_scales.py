"""The scale in closed form: what it minimises, and that it never makes matters worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.passes.migrate.rounding_trial import AS_SEEN, TrialBits
from onnxq.passes.migrate.scales import choose_scale, expected_error
from onnxq.passes.quantize.ranges import params_for
from onnxq.passes.quantize.weights import quantize_weight


def error_of(low: np.ndarray, high: np.ndarray, scale: np.ndarray, weights: list[np.ndarray]) -> float:
    powers = sum((weight.astype(np.float64) ** 2).sum(axis=1) for weight in weights)
    return expected_error(low, high, scale, weights, powers)


def rounded_error(x: np.ndarray, weight: np.ndarray, scale: np.ndarray, bits: TrialBits = AS_SEEN) -> float:
    """What rounding really costs: activations per tensor, weights per column."""
    scaled, rows = x / scale, weight * scale[:, None]
    grid = params_for(float(scaled.min()), float(scaled.max()), bits.activation)
    codes = quantize_weight(rows, bits.weight).values
    return float(((grid.apply(scaled) @ codes - x @ weight) ** 2).mean())


@st.composite
def channels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Extremes of channels over many orders of magnitude, and the weights of one to three readers."""
    count = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = 10 ** random.uniform(*draw(st.sampled_from([(-1, 1), (-6, 6), (0, 0)])), count)
    centre = random.normal(size=count) * draw(st.sampled_from([0.0, 1.0, 10.0]))
    weights = [
        random.normal(size=(count, draw(st.integers(1, 8)))) * draw(st.sampled_from([0.0, 1e-3, 1.0]))
        for _ in range(draw(st.integers(1, 3)))
    ]
    return centre - reach, centre + reach, weights


@settings(max_examples=150, deadline=None)
@given(channels())
def test_no_choice_is_worse_than_none(case: tuple[np.ndarray, np.ndarray, list[np.ndarray]]) -> None:
    low, high, weights = case
    scale = choose_scale(low, high, weights)
    assert scale.shape == low.shape
    assert np.isfinite(scale).all()
    assert scale.min() >= 1
    assert error_of(low, high, scale, weights) <= error_of(low, high, np.ones(len(low)), weights)


def test_a_towering_channel_is_brought_down_and_the_others_are_left_alone() -> None:
    random = np.random.default_rng(0)
    low, high = -np.ones(64), np.ones(64)
    low[5], high[5] = -60.0, 50.0
    weight = random.normal(size=(64, 32))
    scale = choose_scale(low, high, [weight])
    assert int(scale.argmax()) == 5
    assert scale[5] > 10
    assert scale[:5].max() < 3
    assert error_of(low, high, scale, [weight]) < error_of(low, high, np.ones(64), [weight]) / 10


@pytest.mark.parametrize(("weights", "activations", "gain"), [(8, 8, 4), (6, 6, 4), (8, 5, 2.5), (5, 8, 1)])
def test_the_expected_error_foretells_the_real_one(weights: int, activations: int, gain: float) -> None:
    bits = TrialBits(weights, activations, 0.0)
    random = np.random.default_rng(1)
    spread = np.where(np.arange(48) % 16 == 0, 40.0, 1.0)
    x = random.normal(size=(2000, 48)) * spread
    weight = random.normal(size=(48, 24))
    scale = choose_scale(x.min(axis=0), x.max(axis=0), [weight], bits)
    before, after = rounded_error(x, weight, np.ones(48), bits), rounded_error(x, weight, scale, bits)
    assert after < before / gain
    # And the threshold found is not far from the best of all thresholds, measured.
    reach = np.abs(x).max(axis=0)
    measured = [
        rounded_error(x, weight, np.maximum(reach / threshold, 1), bits)
        for threshold in np.geomspace(reach.max(), reach.min() / 4, 60)
    ]
    assert after < 1.5 * min(measured)


@pytest.mark.parametrize("reach", [np.zeros(3), np.ones(3)])
def test_nothing_to_even_out_is_left_alone(reach: np.ndarray) -> None:
    weight = np.eye(3)
    scale = choose_scale(-reach, reach, [weight])
    assert scale.max() / scale.min() == 1.0
    if not reach.any():
        np.testing.assert_array_equal(scale, np.ones(3))


def test_a_second_search_on_what_the_first_made_finds_nothing_worth_moving() -> None:
    for seed in range(60):
        random = np.random.default_rng(seed)
        channels, columns = random.integers(4, 33, 2)
        reach = random.random(channels) * np.where(random.random(channels) < 0.1, 20, 1)
        low, high = -reach, reach * random.uniform(0.5, 1, channels)
        weights = [random.standard_normal((channels, columns)) for _ in range(random.integers(1, 4))]
        scale = choose_scale(low, high, weights)
        again = choose_scale(low / scale, high / scale, [weight * scale[:, None] for weight in weights])
        assert again.max() == 1.0

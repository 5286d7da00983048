"""Extremes per channel and per token."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxq.statistics import TOKEN_CAP, AverageExtremes, ChannelExtremes, TokenExtremes, extremes

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
samples = st.lists(
    st.integers(0, 6).flatmap(lambda size: arrays.arrays(np.float32, (size, 3), elements=floats)),
    min_size=1,
    max_size=8,
)


@given(samples)
def test_channels_of_parts_equal_channels_of_the_whole(parts: list[np.ndarray]) -> None:
    merged = reduce(ChannelExtremes.merge, map(ChannelExtremes.of, parts))
    assert merged == ChannelExtremes.of(np.concatenate(parts))
    whole = np.concatenate(parts)
    if len(whole):
        assert (merged.low == whole.min(axis=0)).all()
        assert (merged.magnitude == np.abs(whole).max(axis=0)).all()


def test_channels_of_another_number_do_not_merge() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        ChannelExtremes.of(np.ones((1, 3))).merge(ChannelExtremes.of(np.ones((1, 4))))


@given(samples, st.randoms(use_true_random=False))
def test_tokens_under_the_cap_are_all_there(parts: list[np.ndarray], random: object) -> None:
    found = [TokenExtremes.of(part, sample=number * 31) for number, part in enumerate(parts)]
    merged = reduce(TokenExtremes.merge, found)
    whole = np.concatenate(parts)
    assert merged.complete
    assert np.sort(merged.high).tolist() == np.sort(whole.max(axis=1)).tolist()
    assert np.sort(merged.low).tolist() == np.sort(whole.min(axis=1)).tolist()
    random.shuffle(found)  # type: ignore[attr-defined]
    assert reduce(TokenExtremes.merge, found) == merged


def test_over_the_cap_the_sample_is_the_same_in_any_order_and_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extremes, "TOKEN_CAP", 500)
    rng = np.random.default_rng(0)
    parts = [TokenExtremes.of(rng.normal(size=(64, 4)) + number, sample=number) for number in range(100)]
    straight = reduce(TokenExtremes.merge, parts)
    shuffled = [parts[index] for index in rng.permutation(100)]
    assert reduce(TokenExtremes.merge, shuffled) == straight
    assert TokenExtremes.joined(shuffled) == straight
    assert straight.low.size == 500
    assert straight.count == 6400
    assert not straight.complete
    # Sample k lies around k: a fair draw has about as many tokens of the first half as of the second.
    assert 180 < (straight.high < 50).sum() < 320


def test_copies_of_a_sample_leave_nothing_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extremes, "TOKEN_CAP", 5)
    one, two = (TokenExtremes.of(np.full((4, 2), value), sample=7) for value in (1.0, 2.0))
    assert one.merge(two) == two.merge(one)


def test_a_cap_of_the_right_size() -> None:
    many = TokenExtremes.of(np.zeros((TOKEN_CAP + 1, 1)))
    assert many.low.size == TOKEN_CAP


@given(samples, st.randoms(use_true_random=False))
def test_averages_are_over_samples_that_hold_something(parts: list[np.ndarray], random: object) -> None:
    found = [AverageExtremes.of(part) for part in parts]
    merged = reduce(AverageExtremes.merge, found)
    some = [part.astype(np.float64) for part in parts if part.size]
    assert merged.samples == len(some)
    if some:
        scale = max(float(np.abs(part).max()) for part in some)
        assert merged.low == pytest.approx(np.mean([part.min() for part in some]), rel=1e-9, abs=1e-9 * scale)
        assert merged.high == pytest.approx(
            np.mean([part.max() for part in some]), rel=1e-9, abs=1e-9 * scale
        )
    else:
        assert np.isnan(merged.low)
    random.shuffle(found)  # type: ignore[attr-defined]
    assert reduce(AverageExtremes.merge, found) == merged


def tokens_with(low: list[float], high: list[float]) -> TokenExtremes:
    return TokenExtremes.of(np.stack([np.array(low), np.array(high)], axis=1))


def test_quantiles_clip_the_tokens_that_stick_out() -> None:
    high = [float(number) for number in range(1, 101)]
    low = [-10.0 * number for number in range(1, 101)]
    found = tokens_with(low, high)
    assert found.quantiles(1) == (-1000, 100)
    assert found.quantiles(0.99) == (-990, 99)
    assert found.quantiles(0.5) == (-500, 50)
    assert found.quantiles(1e-9) == (-10, 1)


def test_quantiles_are_of_magnitudes_and_bounds_are_tokens_own() -> None:
    # Greatest elements on both sides of zero: -8 counts as 8, and is no upper bound while 1 is there.
    found = tokens_with([-9, -5, -9, -9], [-8, 1, 2, 3])
    assert found.quantiles(0.5) == (-9, 2)
    assert found.quantiles(0.25) == (-5, 1)
    # All of one side: the bound is the one nearest to zero.
    assert tokens_with([-9, -9], [-3, -4]).quantiles(0.5)[1] == -3
    assert tokens_with([2, 3], [4, 5]).quantiles(0.5)[0] == 2


@given(samples, st.floats(0.01, 1))
def test_quantiles_always_leave_a_range(parts: list[np.ndarray], alpha: float) -> None:
    found = reduce(TokenExtremes.merge, [TokenExtremes.of(part, sample=7) for part in parts])
    low, high = found.quantiles(alpha)
    if found.count:
        assert low in found.low
        assert high in found.high
        assert found.quantiles(1)[0] <= low
        assert found.quantiles(1)[1] >= high
    else:
        assert np.isnan([low, high]).all()


@pytest.mark.parametrize("alpha", [0, -1, 1.01, float("nan")])
def test_what_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="share"):
        tokens_with([0], [1]).quantiles(alpha)

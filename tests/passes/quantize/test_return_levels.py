"""Ranges that reach as far as one sample in so many will."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.quantize.ranges import choose_range
from onnxq.passes.quantize.return_levels import BLIND, FEWEST, PERIOD, return_level
from onnxq.statistics import Statistic, TensorStatistics

KINDS = (Statistic.CHANNEL_EXTREMES, Statistic.SAMPLE_EXTREMES)


def seen(maxima: np.ndarray) -> TensorStatistics:
    """Statistics of samples whose channels reach from -1 to `maxima` [S, C]."""
    samples = [
        TensorStatistics.of(
            np.stack([row, np.full(row.shape, -1.0)]).astype(np.float32), KINDS, sample=number
        )
        for number, row in enumerate(maxima)
    ]
    total = samples[0]
    for each in samples[1:]:
        total = total.merge(each)
    return total


@pytest.mark.parametrize("period", [20.0, 100.0, 1000.0])
def test_one_sample_in_so_many_exceeds_the_level(period: float) -> None:
    maxima = np.random.default_rng(0).gumbel(10.0, 2.0, size=200_000)
    exceeded = (maxima > return_level(maxima[:20_000], period)).mean()
    assert exceeded == pytest.approx(1 / period, rel=0.2)


def test_few_samples_are_widened_blindly() -> None:
    assert return_level(np.array([3.0] * (FEWEST - 1))) == pytest.approx(3.0 * (1 + BLIND))
    assert return_level(np.array([3.0] * FEWEST)) == pytest.approx(3.0)
    assert return_level(np.zeros(0)) == 0.0


def test_room_goes_to_what_varies() -> None:
    random = np.random.default_rng(1)
    steady, varying = (10 + random.normal(size=(16, 1)) * spread for spread in (0.01, 2.0))
    for maxima in (steady, varying):
        assert choose_range(seen(maxima), "level", 100) == (
            pytest.approx(-1.0),
            pytest.approx(max(return_level(maxima[:, 0]), maxima.max())),
        )
    assert choose_range(seen(steady), "level", 100)[1] < 1.01 * steady.max()
    assert choose_range(seen(varying), "level", 100)[1] > 1.03 * varying.max()


def test_what_was_seen_is_covered() -> None:
    maxima = np.ones((FEWEST * 4, 1))
    maxima[5] = 50.0
    assert return_level(maxima[:, 0], PERIOD) < 50
    assert choose_range(seen(maxima), "level", 100)[1] == 50.0


def test_channels_that_meet_only_zeros_say_nothing() -> None:
    random = np.random.default_rng(2)
    maxima = np.concatenate([5 + random.normal(size=(16, 1)), 100 + 30 * random.normal(size=(16, 1))], axis=1)
    low, high = choose_range(seen(maxima), "level", 100, live=np.array([True, False]))
    assert (low, high) == pytest.approx(choose_range(seen(maxima[:, :1]), "level", 100))


def test_what_it_needs_is_told() -> None:
    bare = TensorStatistics.of(np.ones((4, 2)), (Statistic.CHANNEL_EXTREMES,))
    with pytest.raises(ValueError, match="extremes of samples"):
        choose_range(bare, "level", 100)

"""Histograms whose grid follows from the data's magnitude alone."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxq.statistics import BINS, Histogram

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
chunks = st.lists(arrays.arrays(np.float32, st.integers(0, 20), elements=floats), min_size=1, max_size=6)


@given(chunks, st.randoms(use_true_random=False))
def test_parts_in_any_order_equal_the_whole(parts: list[np.ndarray], random: object) -> None:
    whole = Histogram.of(np.concatenate(parts))
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert reduce(Histogram.merge, map(Histogram.of, parts)) == whole


@given(arrays.arrays(np.float32, st.integers(1, 50), elements=floats))
def test_every_element_is_in_the_bin_that_the_edges_say(values: np.ndarray) -> None:
    histogram = Histogram.of(values)
    wide = values.astype(np.float64)
    edges = histogram.edges
    # The negative half is the mirror image of the positive one, its edges closed on the side of zero.
    positive = np.histogram(wide[wide >= 0], edges)[0]
    negative = np.histogram(-wide[wide < 0], edges)[0][::-1]
    assert (histogram.counts == positive + negative).all()
    assert histogram.total == values.size
    assert (histogram.low, histogram.high) == (wide.min(), wide.max())


def test_zeros_coarsen_nothing() -> None:
    zeros, other = Histogram.of(np.zeros(3, np.float32)), Histogram.of(np.float32([0.25]))
    assert zeros.merge(other) == Histogram.of(np.float32([0, 0, 0, 0.25]))


def test_the_width_is_the_least_power_of_two_that_covers_the_data() -> None:
    for largest in (0.7, 1.0, 4095.9, 4096.0, 3.4e38, 1e-30):
        histogram = Histogram.of(np.array([-largest, largest]))
        assert histogram.width * (BINS // 2) > largest >= histogram.width * (BINS // 4)


def test_quantiles_agree_with_numpy_within_a_bin() -> None:
    values = np.random.default_rng(0).standard_t(3, size=20_000)
    histogram = Histogram.of(values)
    for q in (0, 0.001, 0.25, 0.5, 0.9, 0.9999, 1):
        exact = np.quantile(values, q, method="inverted_cdf")
        assert histogram.quantile(q) == pytest.approx(exact, abs=histogram.width)


def test_nothing_has_no_quantile_and_merges_as_nothing() -> None:
    empty, some = Histogram.empty(), Histogram.of([1.0, -2.0])
    assert np.isnan(empty.quantile(0.5))
    assert empty.merge(some) == some == some.merge(empty)


def test_restriction_keeps_what_lies_between() -> None:
    histogram = Histogram.of(np.arange(-100, 101) + 0.25)
    part = histogram.restrict(-10, 20)
    assert part.total == 30
    assert (part.low, part.high) == (-10, 20)
    centres, counts = part.occupied()
    assert counts.sum() == 30
    assert centres.min() > -10
    assert centres.max() < 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Histogram.of([1.0, bad])

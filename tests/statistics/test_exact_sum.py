"""Sums that do not depend on their order."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.statistics import ExactSum

terms = st.floats(min_value=-1e60, max_value=1e60, allow_subnormal=True)


@given(st.lists(terms, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_order_and_any_grouping_give_the_same_bits(values: list[float], random: object) -> None:
    parts = [ExactSum.of(value) for value in values]
    straight = reduce(ExactSum.merge, parts)
    random.shuffle(parts)  # type: ignore[attr-defined]
    middle = len(parts) // 2
    halves = [reduce(ExactSum.merge, half) for half in (parts[:middle], parts[middle:]) if half]
    assert reduce(ExactSum.merge, halves) == straight


@given(st.lists(terms, min_size=1, max_size=30))
def test_error_is_below_forty_bits_of_the_largest_term(values: list[float]) -> None:
    found = reduce(ExactSum.merge, map(ExactSum.of, values))
    exact = sum(map(Fraction, values))
    largest = max(map(abs, values))
    allowed = len(values) * largest * 2.0**-40 + abs(float(exact)) * 2.0**-52 + 2.0**-1000
    assert abs(Fraction(float(found.value)) - exact) <= Fraction(allowed)


def test_cancellation_leaves_the_small_term() -> None:
    total = ExactSum.of(2.0**30).merge(ExactSum.of(1.0)).merge(ExactSum.of(-(2.0**30)))
    assert total.value == 1.0


def test_zeros_cut_nothing_off() -> None:
    assert ExactSum.of(0.0).merge(ExactSum.of(2.0**-140)).value == 2.0**-140


def test_elements_of_an_array_share_one_scale() -> None:
    total = ExactSum.of(np.array([1e6, 0.5])).merge(ExactSum.of(np.array([-3.0, 0.25])))
    assert total.value.tolist() == [999997.0, 0.75]


@pytest.mark.parametrize("term", [float("nan"), float("inf"), 1e305])
def test_what_cannot_be_summed_is_refused(term: float) -> None:
    with pytest.raises(ValueError, match="cannot sum"):
        ExactSum.of(term)

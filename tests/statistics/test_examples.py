"""Whole values."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from onnxq.statistics import Examples


def sample(number: int) -> Examples:
    return Examples((np.full((1, number + 1), number),), np.array([number * 7919 % 101], dtype=np.uint64))


def test_the_least_keys_stay_in_any_order_and_grouping() -> None:
    parts = [sample(number) for number in range(20)]
    straight = reduce(Examples.merge, parts)
    halves = [reduce(Examples.merge, half) for half in (parts[15:], parts[:15][::-1])]
    assert reduce(Examples.merge, halves) == straight
    assert len(straight.arrays) == Examples.CAP
    assert straight.keys.tolist() == sorted(int(part.keys[0]) for part in parts)[: Examples.CAP]
    for key, array in zip(straight.keys, straight.arrays, strict=True):
        assert array[0, 0] * 7919 % 101 == key


def test_equal_samples_are_kept_once() -> None:
    assert sample(3).merge(sample(3)) == sample(3)


def test_given_by_hand_they_keep_their_order() -> None:
    arrays = [np.array([[True, False]]), np.zeros((1, 2, 2), dtype=np.float16), np.int64(3)]
    found = Examples.of(arrays)
    assert [array.shape for array in found.arrays] == [(1, 2), (1, 2, 2), ()]
    assert [array.dtype for array in found.arrays] == [np.bool_, np.float16, np.int64]


@pytest.mark.parametrize(
    ("arrays", "keys"),
    [
        ((np.ones(1),), np.array([1, 2], dtype=np.uint64)),
        ((np.ones(1), np.ones(1)), np.array([2, 1], dtype=np.uint64)),
        ((np.ones(1), np.ones(1)), np.array([1, 1], dtype=np.uint64)),
        ((np.ones(1),), np.array([1])),
        ((np.array(["text"], dtype=object),), np.array([1], dtype=np.uint64)),
    ],
)
def test_what_is_no_set_of_examples_is_refused(arrays: tuple[np.ndarray, ...], keys: np.ndarray) -> None:
    with pytest.raises(ValueError):
        Examples(arrays, keys)

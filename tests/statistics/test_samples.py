"""Extremes of channels by sample."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.statistics import SampleExtremes


def parts_of(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(random.integers(1, 6), 3)).astype(np.float32) for _ in range(count)]


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_sample_is_there_whatever_the_order(count: int, random: object) -> None:
    parts = parts_of(count)
    found = [SampleExtremes.of(part, sample) for sample, part in enumerate(parts)]
    merged = reduce(SampleExtremes.merge, found)
    assert sorted(map(tuple, merged.high)) == sorted(tuple(part.max(axis=0)) for part in parts)
    assert sorted(map(tuple, merged.low)) == sorted(tuple(part.min(axis=0)) for part in parts)
    random.shuffle(found)  # type: ignore[attr-defined]
    assert reduce(SampleExtremes.merge, found) == merged


def test_a_fair_part_of_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SampleExtremes, "CAP", 50)
    found = [SampleExtremes.of(np.full((2, 1), float(number)), number) for number in range(200)]
    merged = reduce(SampleExtremes.merge, found)
    assert len(merged.keys) == 50
    assert 12 < (merged.high < 100).sum() < 38
    assert reduce(SampleExtremes.merge, reversed(found)) == merged


def test_copies_of_a_sample_leave_nothing_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SampleExtremes, "CAP", 1)
    one, two = (SampleExtremes.of(np.full((4, 2), value), sample=7) for value in (1.0, 2.0))
    assert one.merge(two) == two.merge(one)


def test_a_sample_without_tokens_does_not_count() -> None:
    assert SampleExtremes.of(np.zeros((0, 3), np.float32)).low.shape == (0, 3)


def test_shapes_have_to_fit() -> None:
    one = np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match="shapes"):
        SampleExtremes(one, one[:, :1], np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="are kept"):
        many = np.zeros((SampleExtremes.CAP + 1, 2), np.float32)
        SampleExtremes(many, many, np.zeros(len(many), np.uint64))

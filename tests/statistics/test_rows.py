"""Drawn tokens."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from onnxq.statistics import Rows


def parts_of(count: int, cap: int, monkeypatch: pytest.MonkeyPatch) -> list[Rows]:
    """Samples of 16 tokens, each token holding the number of its sample."""
    monkeypatch.setattr(Rows, "CAP", cap)
    return [
        Rows.of(np.full((16, 2), number, dtype=np.float64), sample=number * 77) for number in range(count)
    ]


def test_all_tokens_stay_while_they_fit() -> None:
    tokens = np.arange(12, dtype=np.float32).reshape(6, 2)
    rows = Rows.of(tokens)
    assert sorted(map(tuple, rows.values)) == sorted(map(tuple, tokens))
    assert (np.diff(rows.keys.astype(object)) > 0).all()


def test_merging_is_the_same_in_any_order_and_grouping(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(20, 50, monkeypatch)
    straight = reduce(Rows.merge, parts)
    halves = [reduce(Rows.merge, half) for half in (parts[13:][::-1], parts[:13])]
    assert reduce(Rows.merge, halves) == straight
    assert Rows.joined(parts[::-1]) == straight
    assert straight.values.shape == (50, 2)


def test_the_draw_is_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = reduce(Rows.merge, parts_of(100, 400, monkeypatch)).values[:, 0]
    assert 150 < (drawn < 50).sum() < 250
    assert len(set(drawn)) > 80


def test_copies_of_a_sample_leave_nothing_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "CAP", 5)
    one, two = (Rows.of(np.full((4, 2), value), sample=7) for value in (1.0, 2.0))
    assert one.merge(two) == two.merge(one)


def test_wide_floats_become_float32() -> None:
    assert Rows.of(np.ones((2, 3), dtype=np.float64)).values.dtype == np.float32


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Rows(np.ones((2, 3), dtype=np.float32), np.zeros(3, dtype=np.uint64))
    with pytest.raises(ValueError, match="float32"):
        Rows(np.ones((2, 3)), np.zeros(2, dtype=np.uint64))  # type: ignore[arg-type]

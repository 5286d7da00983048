"""Rows of activations: all tokens if they are few, the same ones for values that have the same tokens."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.calibration import collect, open_data
from onnxq.statistics import Rows, Statistic, Statistics
from tests.calibration.models import encoder, hidden_tokens, ragged


def drawn(feeds: list[dict[str, np.ndarray]], *names: str) -> Statistics:
    model = encoder()
    return collect(model, open_data(feeds, model), {Statistic.ROWS: names}, cache=False)


def rows_of(found: Statistics, name: str) -> np.ndarray:
    rows = found[name].rows
    assert rows is not None
    return rows.values


def test_few_tokens_are_all_given_without_padding() -> None:
    found = rows_of(drawn(ragged(), "hidden"), "hidden")
    assert sorted(map(tuple, found)) == sorted(map(tuple, hidden_tokens(ragged(), encoder())))


def test_values_with_the_same_tokens_have_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "CAP", 11)
    feeds = ragged()
    found = drawn(feeds, "hidden", "flat", "squared")
    assert found["hidden"].rows == found["flat"].rows
    hidden, squared = rows_of(found, "hidden"), rows_of(found, "squared")
    np.testing.assert_array_equal(hidden**2, squared)
    assert hidden.shape == (11, 6)
    data = {row.tobytes() for row in hidden_tokens(feeds, encoder())}
    assert all(row.tobytes() in data for row in hidden)


def test_order_does_not_matter_to_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "CAP", 9)
    np.testing.assert_array_equal(
        rows_of(drawn(ragged(), "hidden"), "hidden"), rows_of(drawn(ragged()[::-1], "hidden"), "hidden")
    )


def test_rows_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "CAP", 4)
    joined, held = Rows.joined, []

    def counted(parts: list[Rows]) -> Rows:
        held.append(sum(len(part.keys) for part in parts))
        return joined(parts)

    monkeypatch.setattr(Rows, "joined", counted)
    drawn(ragged(60), "hidden")
    assert len(held) > 5
    assert max(held) <= 3 * Rows.CAP


@pytest.mark.parametrize(
    ("name", "why"), [("input_ids", "floats"), ("scores", "varying"), ("absent", "is no value of the model")]
)
def test_what_has_no_rows_is_named(name: str, why: str) -> None:
    found = drawn(ragged(), name)
    assert name not in found or found[name].rows is None
    assert why in found.skipped[name]

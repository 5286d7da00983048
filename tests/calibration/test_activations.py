"""Samples of activations."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.calibration import gather_activations, open_data
from onnxq.errors import CalibrationError
from tests.calibration.models import encoder, ragged, table_of


def test_few_tokens_are_all_given_without_padding() -> None:
    model, feeds = encoder(), ragged()
    found = gather_activations(model, open_data(feeds, model), ["hidden"])["hidden"]
    wanted = np.concatenate(
        [table_of(model)[feed["input_ids"][feed["attention_mask"] == 1]] for feed in feeds]
    )
    assert sorted(map(tuple, found)) == sorted(map(tuple, wanted))


def test_values_with_the_same_tokens_give_the_same_ones_in_the_same_order() -> None:
    model = encoder()
    found = gather_activations(
        model, open_data(ragged(), model), ["hidden", "flat", "squared"], max_tokens=11
    )
    assert found["hidden"].shape == (11, 6)
    np.testing.assert_array_equal(found["hidden"], found["flat"])
    np.testing.assert_array_equal(found["hidden"] ** 2, found["squared"])


def test_order_does_not_matter_and_the_seed_does() -> None:
    model, feeds = encoder(), ragged()

    def draw(part: list[dict[str, np.ndarray]], seed: int = 0) -> np.ndarray:
        return gather_activations(model, open_data(part, model), ["hidden"], max_tokens=9, seed=seed)[
            "hidden"
        ]

    np.testing.assert_array_equal(draw(feeds), draw(feeds[::-1]))
    assert (draw(feeds) != draw(feeds, seed=1)).any()


@pytest.mark.parametrize("name", ["input_ids", "scores", "absent"])
def test_what_cannot_be_drawn_is_named(name: str) -> None:
    model = encoder()
    with pytest.raises(CalibrationError) as caught:
        gather_activations(model, open_data(ragged(), model), [name])
    assert caught.value.slug == "cannot-observe"
    assert repr(name) in caught.value.message

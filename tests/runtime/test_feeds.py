from __future__ import annotations

import numpy as np
import pytest

from onnxq.errors import UsageProblem
from onnxq.runtime import Port
from onnxq.runtime.feeds import feeds_for


def port(name, shape, dtype=np.int64):
    return Port(name, np.dtype(dtype), shape, "")


BERT = (
    port("input_ids", ("batch", "sequence")),
    port("attention_mask", ("batch", "sequence")),
    port("token_type_ids", ("batch", "sequence")),
)
LLM = (
    port("input_ids", ("batch_size", "sequence_length")),
    port("position_ids", ("batch_size", "sequence_length")),
    port("attention_mask", ("batch_size", "past_sequence_length + sequence_length")),
    port("past_key_values.0.key", ("batch_size", 3, "past_sequence_length", 64), np.float32),
)


def shapes(feeds):
    return {name: array.shape for name, array in feeds.items()}


def test_defaults_for_an_encoder():
    feeds = feeds_for(BERT)
    assert set(shapes(feeds).values()) == {(1, 128)}
    assert set(np.unique(feeds["input_ids"])) == {0, 1}
    assert feeds["attention_mask"].all()
    assert not feeds["token_type_ids"].any()
    assert all(array.dtype == np.int64 for array in feeds.values())


def test_one_shape_fixes_the_symbols_of_all():
    assert set(shapes(feeds_for(BERT, {"input_ids": (8, 32)})).values()) == {(8, 32)}


def test_a_decoder_with_and_without_a_past():
    feeds = feeds_for(LLM, {"input_ids": (2, 5)})
    assert feeds["past_key_values.0.key"].shape == (2, 3, 0, 64)
    assert feeds["attention_mask"].shape == (2, 5)
    np.testing.assert_array_equal(feeds["position_ids"], [range(5)] * 2)
    feeds = feeds_for(LLM, {"input_ids": (1, 1), "past_key_values.0.key": (1, 3, 9, 64)})
    assert feeds["attention_mask"].shape == (1, 10)


def test_kinds_of_inputs():
    feeds = feeds_for(
        (
            port("image", ("n", 3, 8, 8), np.float32),
            port("half", (4,), np.float16),
            port("flag", (), np.bool_),
            port("text", (None,), object),
            port("unknown", (None, None), np.float64),
        )
    )
    assert feeds["image"].shape == (1, 3, 8, 8)
    assert 0.5 < feeds["image"].std() < 1.5
    assert feeds["half"].dtype == np.float16
    assert feeds["flag"].shape == () and feeds["flag"]
    assert feeds["text"].tolist() == ["word"]
    assert feeds["unknown"].shape == (1, 16)


def test_seed_decides():
    first, second = feeds_for(BERT, seed=3), feeds_for(BERT, seed=3)
    np.testing.assert_array_equal(first["input_ids"], second["input_ids"])
    assert (first["input_ids"] != feeds_for(BERT, seed=4)["input_ids"]).any()


@pytest.mark.parametrize(
    ("shape", "slug"),
    [
        ({"nope": (1,)}, "unknown-input"),
        ({"past_key_values.0.key": (1, 3, 9)}, "bad-shape"),
        ({"past_key_values.0.key": (1, 4, 9, 64)}, "bad-shape"),
    ],
)
def test_shapes_that_do_not_fit(shape, slug):
    with pytest.raises(UsageProblem) as caught:
        feeds_for(LLM, shape)
    assert caught.value.slug == slug

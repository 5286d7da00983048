from __future__ import annotations

import numpy as np
import pytest
import runtime_graphs

from onnxq.errors import UnsupportedModel, UsageProblem
from onnxq.runtime import Port, Worker
from onnxq.runtime.feeds import feeds_for, ports_of, shapes_for


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


def test_dimensions_by_their_names():
    assert set(shapes(feeds_for(BERT, {"batch": (8,), "sequence": (32,)})).values()) == {(8, 32)}
    feeds = feeds_for(LLM, {"batch": (2,), "sequence_length": (1,), "past_sequence_length": (9,)})
    assert feeds["past_key_values.0.key"].shape == (2, 3, 9, 64)
    assert feeds["attention_mask"].shape == (2, 10)
    assert feeds["input_ids"].shape == (2, 1)


def test_a_cache_is_listed_once():
    cache = [port(f"past.{i}", ("batch", 3, "past", 64)) for i in range(60)]
    with pytest.raises(UsageProblem) as caught:
        feeds_for([*BERT, *cache], {"nope": (1,)})
    assert "past.0 batch x 3 x past x 64 (and 59 others like it)" in caught.value.hint
    assert len(caught.value.hint) < 300


def test_inputs_may_differ_in_what_a_sloppy_exporter_called_the_same():
    sizes = shapes_for(BERT, {"input_ids": (1, 8), "attention_mask": (1, 9)})
    assert sizes == {"input_ids": (1, 8), "attention_mask": (1, 9), "token_type_ids": (1, 8)}


def test_ports_are_those_of_a_session():
    half = "g (bfloat16[n, 3] x, int64[2] k) => (bfloat16[n, 3] y) { y = Identity(x) }"
    model = runtime_graphs.model(half, k=np.zeros(2, np.int64))
    model.graph.inputs[1].const_value = model.graph.initializers["k"].const_value
    with Worker() as worker, worker.open(model) as session:
        assert ports_of(model) == session.inputs


def test_an_input_that_is_no_tensor():
    model = runtime_graphs.model(
        "g (seq(float[2]) x) => (float[2] y) { y = SequenceAt(x, i) }", i=np.int64(0)
    )
    with pytest.raises(UnsupportedModel, match="input 'x' is no tensor"):
        ports_of(model)


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
    ("shape", "slug", "told"),
    [
        ({"nope": (1,)}, "unknown-input", "input_ids batch_size x sequence_length"),
        ({"past_key_values.0.key": (1, 3, 9)}, "bad-shape", "3 sizes for 4 axes"),
        ({"past_key_values.0.key": (1, 4, 9, 64)}, "bad-shape", "axis 1 is always 3"),
        ({"sequence_length": (1, 128)}, "bad-shape", "sequence_length=1"),
        ({"batch_size": (4,), "input_ids": (8, 2)}, "bad-shape", "batch_size is 4 and, by input_ids=8x2, 8"),
        ({"input_ids": (8, 2), "batch": (4,)}, "bad-shape", "batch_size is 8 and, by batch=4, 4"),
        ({"past": (1,)}, "unknown-input", "dimensions: batch_size"),
    ],
)
def test_shapes_that_do_not_fit(shape, slug, told):
    with pytest.raises(UsageProblem) as caught:
        feeds_for(LLM, shape)
    assert caught.value.slug == slug
    assert told in str(caught.value)

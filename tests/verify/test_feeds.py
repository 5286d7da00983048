"""Made-up feeds fit the model, reach its corners, and are the same every time."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.errors import UnsupportedModel
from onnxq.verify import FeedSettings, make_feeds
from onnxq.verify.feeds import sizes_of
from tests.graphs import model_of, outputs_of

TOKENS = """
g (int64[batch, length] ids, int64[batch, length] attention_mask, float[batch, all] bias) => (float[?,?,3] y)
{
    flat = Cast<to = 7>(ids)
    h = Gather(table, flat)
    small = Gather(other, ids)
    y = Add(h, small)
}"""


def tokens() -> ir.Model:
    tables = {"table": np.ones((11, 3), np.float32), "other": np.ones((5, 3), np.float32)}
    model = model_of(TOKENS, **tables)
    model.graph.inputs[2].shape = ir.Shape(["batch", "past + length"])
    return model


def test_sizes_agree_by_name_and_include_one():
    plans = sizes_of(tokens())
    assert {"batch": 1, "length": 1, "past": 1} in plans
    first = plans[0]
    assert len(set(first.values())) == 3, "different sizes tell dimensions apart"
    (feed, *_) = make_feeds(tokens(), first)
    assert feed.arrays["ids"].shape == (first["batch"], first["length"])
    assert feed.arrays["bias"].shape == (first["batch"], first["past"] + first["length"])


def test_static_model_has_one_plan():
    assert sizes_of(model_of("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }")) == ({},)


def test_nameless_dimensions_of_one_axis_agree():
    model = model_of("g (float[?,?] x, float[?,?] z) => (float[?,?] y) { y = Add(x, z) }")
    for sizes in sizes_of(model)[:2]:
        (feed, *_) = make_feeds(model, sizes)
        assert feed.arrays["x"].shape == feed.arrays["z"].shape


def test_ids_stay_inside_the_smallest_table():
    model = tokens()
    seen = {
        int(number)
        for sizes in sizes_of(model)[:2]
        for feed in make_feeds(model, sizes, FeedSettings(seeds=12))
        for number in feed.arrays["ids"].flat
    }
    assert seen == {0, 1, 2, 3, 4}


def test_ids_are_traced_into_functions():
    model = model_of(
        """g (int64[n] ids) => (float[n,2] y) <float[3,2] table = {1,2,3,4,5,6}> { y = here.look(table, ids) }
        <domain: "here", opset_import: ["": 18]> look (t, i) => (o) { j = Identity(i) o = Gather(t, j) }"""
    )
    largest = max(feed.arrays["ids"].max() for feed in make_feeds(model, {"n": 9}))
    assert largest == 2
    assert outputs_of(model, make_feeds(model, {"n": 4})[0].arrays)["y"].shape == (4, 2)


def test_masks_are_ones_or_end_early_and_are_never_empty():
    model = tokens()
    feeds = make_feeds(model, {"batch": 4, "length": 6, "past": 1}, FeedSettings(seeds=6))
    masks = [feed.arrays["attention_mask"] for feed in feeds]
    assert any(mask.all() for mask in masks)
    assert any(not mask.all() for mask in masks)
    for mask in masks:
        assert (mask[:, 0] == 1).all()
        assert (np.diff(mask, axis=1) <= 0).all()


def test_shapes_are_ones():
    model = model_of("g (float[2,3] x, int64[2] repeats) => (float[?,?] y) { y = Tile(x, repeats) }")
    assert all((feed.arrays["repeats"] == 1).all() for feed in make_feeds(model, {}))


def test_corners_are_what_they_are_called():
    model = model_of("g (float[n,4] x, float16[n,4] h) => (float[n,4] y) { y = Neg(x) }")
    feeds = {
        feed.label.split()[0]: feed.arrays
        for feed in make_feeds(model, {"n": 32}, FeedSettings(extremes=True))
    }
    assert not feeds["zeros"]["x"].any()
    assert (feeds["negative"]["x"] < 0).all()
    assert np.abs(feeds["huge"]["x"]).max() > 1e4
    assert np.isfinite(feeds["huge"]["h"].astype(np.float32) ** 2).all()
    assert 0 < np.abs(feeds["tiny"]["x"]).max() < 1e-13
    special = feeds["special"]["x"]
    assert np.isnan(special).any()
    assert np.isinf(special).any()
    assert (np.signbit(special) & (special == 0)).any()
    assert np.abs(feeds["largest"]["x"]).max() == np.finfo(np.float32).max


def test_only_bitwise_promises_meet_nan():
    model = model_of("g (float[n,4] x) => (float[n,4] y) { y = Neg(x) }")
    assert all(np.isfinite(feed.arrays["x"]).all() for feed in make_feeds(model, {"n": 32}))


def test_feeds_are_the_same_every_time_and_differ_by_seed():
    model = model_of("g (float[n,4] x) => (float[n,4] y) { y = Neg(x) }")
    first, second = make_feeds(model, {"n": 3}), make_feeds(model, {"n": 3})
    assert all(np.array_equal(a.arrays["x"], b.arrays["x"]) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].arrays["x"], first[1].arrays["x"])
    other = make_feeds(model, {"n": 3}, FeedSettings(seed=7))
    assert not np.array_equal(first[0].arrays["x"], other[0].arrays["x"])


def test_overridable_inputs_are_left_to_their_default():
    model = model_of("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=np.ones(2, np.float32))
    assert all(list(feed.arrays) == ["x"] for feed in make_feeds(model, {}))


@pytest.mark.parametrize(
    "dtype", ["double", "float16", "bfloat16", "int8", "uint16", "bool", "string", "int32"]
)
def test_every_element_type_runs(dtype):
    model = model_of(f"g ({dtype}[n] x) => ({dtype}[n] y) {{ y = Identity(x) }}")
    for feed in make_feeds(model, {"n": 3}, FeedSettings(extremes=True)):
        assert outputs_of(model, feed.arrays)["y"].dtype == feed.arrays["x"].dtype


def test_sequence_input_is_refused_by_name():
    model = model_of("g (seq(float[2]) s) => (int64 y) { y = SequenceLength(s) }")
    with pytest.raises(UnsupportedModel, match="'s'") as caught:
        make_feeds(model, {})
    assert caught.value.slug == "input-kind"

"""Collection: equal to numpy on everything at once, without padding, and bounded."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from onnxq import runtime
from onnxq.calibration import DataOptions, DataSource, collect, open_data, taps
from onnxq.errors import CalibrationError
from onnxq.statistics import Statistic, Statistics, TensorStatistics
from tests.calibration.models import encoder, every, hidden_tokens, linear, ragged
from tests.graphs import model_of

ORDERLESS = tuple(kind for kind in Statistic if kind is not Statistic.SECOND_MOMENTS)


def fresh(model: ir.Model, source: DataSource, *names: str, **options: int) -> Statistics:
    return collect(model, source, every(*names), cache=False, **options)  # type: ignore[arg-type]


def assert_same_products(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal but for products in float32."""
    size = np.sqrt(np.diag(wanted))
    assert (np.abs(found - wanted) <= 2e-6 * np.outer(size, size) + 1e-30).all()


def assert_describes(found: TensorStatistics, tokens: np.ndarray) -> None:
    wide = tokens.astype(np.float64)
    assert found.count == len(tokens)
    assert found.channel is not None
    assert found.token is not None
    assert found.histogram is not None
    assert found.moments is not None
    assert found.raw is not None
    np.testing.assert_array_equal(found.channel.low, tokens.min(axis=0))
    np.testing.assert_array_equal(found.channel.high, tokens.max(axis=0))
    np.testing.assert_array_equal(np.sort(found.token.high), np.sort(tokens.max(axis=1)))
    assert (found.low, found.high) == (tokens.min(), tokens.max())
    assert found.histogram.total == found.raw.count == tokens.size
    even = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True))
    assert_same_products(found.moments.gram, even.T @ even)
    assert found.raw.mean == pytest.approx(wide.mean())


@pytest.mark.parametrize("name", ["hidden", "flat"])
def test_padding_does_not_enter(name: str) -> None:
    model, feeds = encoder(), ragged()
    found = fresh(model, open_data(feeds, model), name)
    assert_describes(found[name], hidden_tokens(feeds, model))
    assert not found.skipped


def test_what_has_other_axes_is_counted_whole() -> None:
    model, feeds = encoder(), ragged()
    found = collect(model, open_data(feeds, model), {Statistic.HISTOGRAM: ["scores", "pooled"]}, cache=False)
    shapes = [feed["input_ids"].shape for feed in feeds]
    assert found["scores"].histogram.total == sum(2 * rows * length**2 for rows, length in shapes)  # type: ignore[union-attr]
    assert found["pooled"].count == sum(rows for rows, _ in shapes)


def test_a_last_axis_of_varying_length_has_no_channels() -> None:
    model = encoder()
    found = fresh(model, open_data(ragged(), model), "scores")
    assert (found["scores"].channel, found["scores"].moments, found["scores"].rows) == (None, None, None)
    assert found["scores"].histogram is not None
    assert "varying" in found.skipped["scores"]


def orderless(feeds: list[dict[str, np.ndarray]], *names: str) -> Statistics:
    """Every kind that does not depend on the order of the samples to the last bit."""
    model = encoder()
    return collect(model, open_data(feeds, model), dict.fromkeys(ORDERLESS, names), cache=False)


def test_order_does_not_matter() -> None:
    names = ("hidden", "flat", "pooled", "logits")
    forward, backward = orderless(ragged(), *names), orderless(ragged()[::-1], *names)
    assert forward.tensors == backward.tensors
    assert all(len(each.examples.arrays) == 8 for each in forward.values())  # type: ignore[union-attr]


def test_second_moments_depend_on_the_order_by_rounding_alone() -> None:
    model, feeds = encoder(), ragged()
    one, two = (fresh(model, open_data(each, model), "hidden")["hidden"] for each in (feeds, feeds[::-1]))
    assert_same_products(one.moments.gram, two.moments.gram)  # type: ignore[union-attr]
    np.testing.assert_allclose(one.moments.total, two.moments.total, rtol=1e-13, atol=1e-12)  # type: ignore[union-attr]


def test_parts_merge_to_the_whole() -> None:
    first, second, whole = (
        orderless(feeds, "hidden", "logits") for feeds in (ragged()[:5], ragged()[5:], ragged())
    )
    assert second.merge(first).tensors == whole.tensors
    assert first.merge(second).tensors == whole.tensors


def test_average_extremes_are_means_over_samples() -> None:
    x = np.array([[1, 2], [3, -9], [0.5, 0.25], [4, 4]], dtype=np.float32)
    model = model_of("m (float[n, 2] x) => (float[n, 2] y) { y = Identity (x) }")
    found = fresh(model, open_data({"x": x}, model, DataOptions(batch_size=3)), "y")["y"].average
    assert found is not None
    assert found.samples == 4
    assert found.low == pytest.approx((1 - 9 + 0.25 + 4) / 4)
    assert found.high == pytest.approx((2 + 3 + 0.5 + 4) / 4)


def test_the_infinity_norm_is_a_mean_over_samples_not_batches() -> None:
    x = np.array([[1, 2], [3, -9], [0.5, 0.25], [4, 4]], dtype=np.float32)
    model = model_of("m (float[n, 2] x) => (float[n, 2] y) { y = Neg (x) }")
    found = fresh(model, open_data({"x": x}, model, DataOptions(batch_size=3)), "y")
    assert found["y"].raw is not None
    assert found["y"].raw.samples == 4
    assert found["y"].raw.infinity_norm == pytest.approx((2 + 9 + 0.5 + 4) / 4)


def test_graph_inputs_can_be_observed() -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = fresh(linear(), open_data({"x": x}, linear()), "x", "y")
    assert_describes(found["x"], x)
    assert_describes(found["y"], x * x)


def test_half_precision_and_constants_and_strangers() -> None:
    model = model_of(
        """
        m (float16[n, 2] x, int64[n] i, bool go) => (float16[n, 2] z)
        <float16[2] bias>
        {
          y = Add (x, bias)
          j = Add (i, i)
          w = Constant <value = float[1] {3}> ()
          z = If (go) <then_branch = t () => (float16[n, 2] inside) { inside = Mul (y, y) },
                       else_branch = e () => (float16[n, 2] other) { other = Add (y, y) }>
        }
        """,
        bias=np.array([1, 2], np.float16),
    )
    data = {"x": np.ones((2, 2), np.float16), "i": np.ones(2, int), "go": np.True_}
    found = fresh(model, open_data(data, model), "y", "z", "bias", "w", "j", "inside", "nonsense")
    assert set(found) == {"y", "z"}
    assert found["y"].channel.high.tolist() == [2, 3]  # type: ignore[union-attr]
    assert found.skipped == {
        "bias": "is a constant",
        "w": "is a constant",
        "j": "holds no floats",
        "inside": "is inside a subgraph, which the runtime does not show",
        "nonsense": "is no value of the model",
    }


def test_what_comes_into_the_body_of_a_loop_cannot_be_shown() -> None:
    model = model_of(
        """m (float[n, 2] x) => (float[n, 2] y) <int64 times = {3}, bool go = {1}> {
          y = Loop (times, go, x) <body = b (int64 i, bool on, float[n, 2] state)
            => (bool more, float[n, 2] next) { more = Identity (on)  next = Tanh (state) }>
        }"""
    )
    found = fresh(model, open_data({"x": np.ones((2, 2), np.float32)}, model), "state")
    assert found.skipped == {"state": "is inside a subgraph, which the runtime does not show"}


def test_values_of_functions_cannot_be_shown() -> None:
    model = model_of(
        """
        m (float[n, 2] x) => (float[n, 2] y) { y = here.f (x) }
        <domain: "here", opset_import: ["": 18]> f (a) => (b) { within = Add (a, a) b = Neg (within) }
        """
    )
    found = fresh(model, open_data({"x": np.ones((1, 2), np.float32)}, model), "within", "y")
    assert "function" in found.skipped["within"]
    assert "y" in found


@pytest.mark.parametrize("fill", ["-inf", "-3.4028234663852886e38"])
def test_constants_of_a_mask_are_no_data(fill: str) -> None:
    model = model_of(
        f"""
        m (float[n, 2] x, bool[n, 2] keep) => (float[n, 2] p)
        {{
          least = Constant <value = float {{{fill}}}> ()
          scores = Where (keep, x, least)
          p = Softmax (scores)
        }}
        """
    )
    data = {"x": np.ones((2, 2), np.float32), "keep": np.array([[True, True], [True, False]])}
    found = fresh(model, open_data(data, model), "scores", "p")
    assert "mask" in found.skipped["scores"]
    assert set(found) == {"p"}


@pytest.mark.parametrize(("operator", "word"), [("Sqrt", "NaN"), ("Exp", "infinity")])
def test_what_the_model_computes_must_be_finite(operator: str, word: str) -> None:
    model = model_of(f"m (float[n, 2] x) => (float[n, 2] z) {{ y = {operator} (x) z = Neg (y) }}")
    data = {"x": np.array([[1, 1], [-1, 1000]], np.float32)}
    with pytest.raises(CalibrationError) as caught:
        fresh(model, open_data(data, model), "y")
    assert caught.value.slug == "non-finite-activation"
    assert "'y'" in caught.value.message
    assert word in caught.value.message


def test_all_padding_is_an_error() -> None:
    model = encoder()
    data = {"input_ids": np.ones((2, 3), int), "attention_mask": np.zeros((2, 3), int)}
    with pytest.raises(CalibrationError) as caught:
        fresh(model, open_data(data, model), "hidden")
    assert caught.value.slug == "all-padding"


def test_what_is_hidden_by_name_is_not_taken_for_what_is_shown() -> None:
    model = model_of(
        """m (float[n, s, 2] x, bool[n, s] key_padding_mask) => (float[n, s, 2] y) { y = Neg (x) }"""
    )
    data = {"x": np.ones((2, 3, 2), np.float32), "key_padding_mask": np.array([[False] * 3, [True] * 3])}
    assert fresh(model, open_data(data, model), "y")["y"].count == 6


def test_the_model_is_not_changed() -> None:
    model = encoder()
    before = ir.to_proto(model).SerializeToString()
    fresh(model, open_data(ragged(2), model), "hidden", "logits")
    assert ir.to_proto(model).SerializeToString() == before


def test_a_small_memory_gives_the_same_in_more_runs() -> None:
    model, feeds = encoder(), ragged()
    names = ("hidden", "flat", "squared", "scores", "logits")
    plenty = fresh(model, open_data(feeds, model), *names)
    scarce = fresh(model, open_data(feeds, model), *names, memory=600)
    assert scarce.tensors == plenty.tensors


def test_parts_fit_into_memory_and_lose_nothing() -> None:
    model = encoder()
    names = ("hidden", "flat", "squared", "scores", "logits")
    source = open_data(ragged(), model)
    sizes = taps._sizes(model, source, names)
    parts = taps.parts_of(model, source, names, 2 * max(sizes.values()))
    assert len(parts) > 1
    assert [name for part in parts for name in part] == list(names)
    assert all(sum(sizes[name] for name in part) <= 2 * max(sizes.values()) for part in parts)


def test_outputs_that_nobody_asked_for_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ir.Model] = []
    open_session = runtime.open_session

    def watched(model: ir.Model, *settings: object) -> runtime.Session:
        opened.append(model)
        return open_session(model, *settings)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime, "open_session", watched)
    model = encoder()
    fresh(model, open_data(ragged(2), model), "hidden")
    assert all(
        "logits" not in {value.name for node in each.graph for value in node.outputs} for each in opened
    )


def test_nothing_holds_samples() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    peaks: list[int] = []

    class Watched(np.ndarray):
        pass

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for number in range(30):
            array = np.full((2, 4), number, dtype=np.float32).view(Watched)
            alive.append(weakref.ref(array))
            peaks.append(sum(each() is not None for each in alive))
            yield {"x": array}
            del array

    fresh(linear(), open_data(feeds, linear()), "x", "y", "z")
    gc.collect()
    assert len(peaks) >= 60
    assert max(peaks) <= 4
    assert sum(each() is not None for each in alive) == 0


def test_progress_counts_to_the_end() -> None:
    model = encoder()
    seen: list[tuple[int, int]] = []
    collect(
        model,
        open_data(ragged(4), model),
        every("hidden", "logits"),
        progress=lambda done, total: seen.append((done, total)),
        cache=False,
        memory=1,
    )
    assert seen[-1] == (12, 12)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_nothing_wanted_runs_nothing() -> None:
    def never() -> list[dict[str, np.ndarray]]:
        return [{"x": np.ones((1, 4), np.float32)}]

    assert len(collect(linear(), open_data(never, linear()), {}, cache=False)) == 0

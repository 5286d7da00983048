"""What the options of QuantizeLinears write: bits, live and known ranges, symmetric codes, fitted weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.errors import UsageProblem
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.passes.quantize.ranges import choose_range, params_for
from onnxq.pipeline import PassResult, apply_pass
from onnxq.recipe import format_pass, parse_pass
from onnxq.runtime import confirm_kernels, expected_kernels, open_session, optimized_graph
from onnxq.statistics import Statistic, Statistics, TensorStatistics
from tests.graphs import ops_of, outputs_of
from tests.passes.quantize.integers import BODIES, K, activation, constants, model_of, seen

QKV = "q = MatMul(x, w) k = MatMul(x, v) y = Add(q, k)"


def quantized(model: ir.Model, statistics: Statistics, a_pass: QuantizeLinears) -> PassResult:
    result = apply_pass(model, a_pass, statistics)
    assert result.modified, result.rejects
    assert result.settled
    return result


def arrays_of(model: ir.Model) -> list[np.ndarray]:
    return [value.const_value.numpy() for value in model.graph.initializers.values()]


def weights_of(model: ir.Model) -> list[np.ndarray]:
    return [array for array in arrays_of(model) if array.dtype == np.int8 and array.ndim == 2]


def activation_scale(model: ir.Model) -> float:
    (node,) = (node for node in model.graph if node.op_type == "QuantizeLinear")
    return float(node.inputs[1].const_value.numpy())


def codes_of(model: ir.Model, x: np.ndarray) -> np.ndarray:
    (node,) = (node for node in model.graph if node.op_type == "QuantizeLinear")
    name = node.outputs[0].name
    copy = model.clone()
    copy.graph.outputs.append(next(out for each in copy.graph for out in each.outputs if out.name == name))
    return outputs_of(copy, {"x": x})[name]


def landed(model: ir.Model) -> bool:
    landings = confirm_kernels(expected_kernels(model), optimized_graph(model))
    return bool(landings) and all(landing.landed for landing in landings)


@pytest.mark.parametrize("form", ["kernel", "qdq"])
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(4, 8), (6, 6), (8, 4), (2, 2)])
@pytest.mark.parametrize("rounding", ["nearest", "feedback", "drop"])
def test_codes_keep_to_their_bits_in_the_same_kernel(form, weight_bits, activation_bits, rounding):
    x = activation((2, 30, K))
    a_pass = QuantizeLinears(
        form=form, weight_bits=weight_bits, activation_bits=activation_bits, rounding=rounding
    )
    model = quantized(model_of(BODIES["sum"]), seen(x), a_pass).model
    (weight,) = weights_of(model)
    assert np.abs(weight.astype(int)).max() <= 2 ** (weight_bits - 1) - 1
    codes = codes_of(model, x * 3)  # further out than what was seen
    assert codes.min() == 0
    assert codes.max() == 2**activation_bits - 1
    assert landed(model)


@pytest.mark.parametrize("bits", [3, 6, 8])
def test_fewer_bits_compute_what_their_grid_says(bits):
    x = activation((2, 3, K))
    model = quantized(model_of(BODIES["sum"]), seen(x), QuantizeLinears(activation_bits=bits)).model
    rows = params_for(float(x.min()), float(x.max()), bits).apply(x)
    w = constants()["w"]
    scale = (np.abs(w).max(axis=0) / 127).astype(np.float32)
    expected = rows @ (np.rint(w / scale) * scale) + constants()["b"]
    found = outputs_of(model, {"x": x})["y"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("bits", [4, 6])
def test_a_scale_per_token_in_fewer_bits(bits):
    x = activation((2, 3, K))
    a_pass = QuantizeLinears(activation_bits=bits, per_token=("node0",))
    model = quantized(model_of(BODIES["sum"]), Statistics({}), a_pass).model
    codes = codes_of(model, x).astype(int) - 128
    assert np.abs(codes).max(axis=-1).tolist() == [[2 ** (bits - 1) - 1] * 3] * 2
    assert landed(model)


def with_dead_channels(*names: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Weights with rows of zeros at 3 and 40, where the activation towers."""
    arrays = {name: constants()[name].copy() for name in names}
    for array in arrays.values():
        array[[3, 40]] = 0
    x = activation((2, 30, K))
    x[..., 3] *= 100
    x[..., 40] -= 500
    return arrays, x


@pytest.mark.parametrize("method", ["minmax", "average", "percentile", "mse", "token", "level"])
@pytest.mark.parametrize("rounding", ["nearest", "feedback"])
def test_channels_that_meet_only_zeros_cost_no_resolution(method, rounding):
    arrays, x = with_dead_channels("w", "v")
    model = model_of(QKV, **arrays)
    a_pass = QuantizeLinears(method=method, rounding=rounding, percentile=100.0)
    result = quantized(model, seen(x), a_pass).model
    live = np.delete(x, [3, 40], axis=-1)
    room = 1.2001 if method == "level" else 1.0001  # of a single sample
    assert activation_scale(result) <= room * (live.max() - live.min()) / 255
    assert all((weight[[3, 40]] == 0).all() for weight in weights_of(result))
    exact = outputs_of(model, {"x": x})["y"]
    off = outputs_of(result, {"x": x})["y"] - exact
    assert np.linalg.norm(off) < (0.05 if method == "minmax" else 0.3) * np.linalg.norm(exact)


def test_a_channel_that_matters_to_one_reader_counts_for_all():
    arrays, x = with_dead_channels("w", "v")
    arrays["v"][3] = 1.0
    for order in (QKV, "k = MatMul(x, v) q = MatMul(x, w) y = Add(q, k)"):
        result = quantized(model_of(order, **arrays), seen(x), QuantizeLinears()).model
        assert ops_of(result).count("QuantizeLinear") == 1
        live = np.delete(x, 40, axis=-1)
        assert activation_scale(result) == pytest.approx((live.max() - live.min()) / 255)


def test_readers_in_float_or_with_scales_of_their_own_do_not_count():
    arrays, x = with_dead_channels("w")
    for others in (QuantizeLinears(skip=("node1",)), QuantizeLinears(only=("node0",))):
        result = quantized(model_of(QKV, **arrays), seen(x), others).model
        assert activation_scale(result) < 1
    dynamic = quantized(model_of(QKV, **arrays), seen(x), QuantizeLinears(per_token=("node1",))).model
    assert min(float(array) for array in arrays_of(dynamic) if array.shape == () and array.dtype == "f") < 1


def test_a_second_run_shares_a_range_only_if_it_is_wide_enough():
    arrays, x = with_dead_channels("w")
    first = quantized(model_of(QKV, **arrays), seen(x), QuantizeLinears(only=("node0",))).model
    both = quantized(first, seen(x), QuantizeLinears()).model
    scales = sorted(
        float(node.inputs[1].const_value.numpy()) for node in both.graph if node.op_type == "QuantizeLinear"
    )
    assert len(scales) == 2
    assert scales[1] > 20 * scales[0]
    turned = quantized(model_of(QKV, **arrays), seen(x), QuantizeLinears(only=("node1",))).model
    shared = quantized(turned, seen(x), QuantizeLinears()).model
    assert ops_of(shared).count("QuantizeLinear") == 1


def test_a_clip_of_the_model_itself_is_not_taken_for_ours():
    body = "c = Clip(x, low, high) q = MatMul(x, w) k = MatMul(c, v) y = Add(q, k)"
    ends = {"low": np.float32(-0.5), "high": np.float32(0.5)}
    x = activation((2, 30, K))
    statistics = Statistics({**seen(x), **seen(np.clip(x, -0.5, 0.5), "c")})
    for text in (
        body,
        body.replace("q = MatMul(x, w) k = MatMul(c, v)", "k = MatMul(c, v) q = MatMul(x, w)"),
    ):
        model = model_of(text, **{name: np.asarray(end) for name, end in ends.items()})
        exact = outputs_of(model, {"x": x})["y"]
        found = quantized(model, statistics, QuantizeLinears(activation_bits=6)).model
        assert ops_of(found).count("QuantizeLinear") == 2
        assert np.linalg.norm(outputs_of(found, {"x": x})["y"] - exact) < 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [("Softmax", 0, 1), ("Sigmoid", 0, 1), ("Tanh", -1, 1), ("Erf", -1, 1)],
)
def test_bounded_functions_have_their_own_range(function, low, high):
    body = f"a = {function}(x) h = Identity(a) y = MatMul(h, w)"
    x = activation((2, 3, K)) * 0.01  # far from the ends
    inner = seen(np.full((4, K), 0.3, np.float32), "h")
    result = quantized(model_of(body), inner, QuantizeLinears(margin=0.5)).model
    assert activation_scale(result) == pytest.approx((high - low) / 255)
    assert np.isfinite(outputs_of(result, {"x": x})["y"]).all()


def test_a_given_range_beats_every_other():
    x = activation((2, 3, K))
    a_pass = QuantizeLinears(ranges=(("x", -1.0, 4.1),), margin=0.5)
    assert activation_scale(quantized(model_of(BODIES["sum"]), seen(x), a_pass).model) == pytest.approx(0.02)
    unseen = quantized(model_of(BODIES["sum"]), Statistics({}), a_pass)
    assert activation_scale(unseen.model) == pytest.approx(0.02)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", ["kernel", "qdq"])
@pytest.mark.parametrize("body", ["product", "sum", "gemm"])
def test_symmetric_codes_are_signed_around_zero(body, form, bits):
    shape = "N,64" if body == "gemm" else "B,T,64"
    x = activation((6, K) if body == "gemm" else (2, 3, K))
    a_pass = QuantizeLinears(form=form, activation="symmetric", activation_bits=bits)
    model = quantized(model_of(BODIES[body], shape), seen(x), a_pass).model
    codes = codes_of(model, x * 3)
    assert codes.dtype == np.int8
    assert codes.max() == 2 ** (bits - 1) - 1
    reach = float(np.abs(x).max())
    assert activation_scale(model) == pytest.approx(reach / (2 ** (bits - 1) - 1))
    exact = outputs_of(model_of(BODIES[body], shape), {"x": x})["y"]
    off = np.linalg.norm(outputs_of(model, {"x": x})["y"] - exact) / np.linalg.norm(exact)
    assert off < (0.02 if bits == 8 else 0.3)
    np.testing.assert_allclose(
        open_session(model).run({"x": x})["y"],
        outputs_of(model, {"x": x})["y"],
        atol=0.02 * np.abs(exact).max(),
    )


def test_one_signed_product_still_lands_in_a_kernel():
    x = activation((2, 3, K))
    a_pass = QuantizeLinears(form="qdq", activation="symmetric")
    assert landed(quantized(model_of(BODIES["product"]), seen(x), a_pass).model)


@pytest.mark.parametrize("form", ["kernel", "qdq"])
def test_a_corrected_bias_appears_where_there_was_none(form):
    x = activation((2, 200, K)) + 2
    a_pass = QuantizeLinears(form=form, correct_bias=True, weight_bits=4)
    given = model_of(BODIES["product"])
    result = quantized(given, seen(x), a_pass)
    assert any(change.action == "remark" and "bias correction" in change.detail for change in result.changes)
    exact = outputs_of(given, {"x": x})["y"]
    plain = quantized(given, seen(x), QuantizeLinears(form=form, weight_bits=4)).model
    off, before = (
        np.abs((outputs_of(m, {"x": x})["y"] - exact).mean(axis=(0, 1))) for m in (result.model, plain)
    )
    assert off.sum() < 0.3 * before.sum()
    assert landed(result.model)


def test_the_journal_says_what_was_kept_of_each_layer():
    x = activation((2, 100, K))
    result = quantized(model_of(QKV), seen(x), QuantizeLinears(rounding="feedback", weight_bits=4))
    remarks = {change.node: change.detail for change in result.changes if change.action == "remark"}
    assert sorted(remarks) == ["node0", "node1"]
    assert all("feedback: held-out error" in text for text in remarks.values())
    assert not any(
        change.action == "remark" for change in quantized(model_of(QKV), seen(x), QuantizeLinears()).changes
    )


@pytest.mark.parametrize(
    ("a_pass", "kinds"),
    [
        (QuantizeLinears(), {"channel-extremes"}),
        (QuantizeLinears(method="mse"), {"channel-extremes", "histogram"}),
        (QuantizeLinears(method="average"), {"channel-extremes", "average-extremes"}),
        (QuantizeLinears(method="token"), {"channel-extremes", "token-extremes"}),
        (QuantizeLinears(method="level"), {"channel-extremes", "sample-extremes"}),
        (QuantizeLinears(rounding="drop"), {"channel-extremes", "second-moments", "rows"}),
        (QuantizeLinears(correct_bias=True), {"channel-extremes", "second-moments", "rows"}),
    ],
)
def test_only_the_statistics_that_the_options_read_are_asked_for(a_pass, kinds):
    asked = a_pass.wanted(model_of(QKV))
    assert {kind.value for kind in asked} == kinds
    assert {value.name for values in asked.values() for value in values} == {"x"}
    assert (
        list(QuantizeLinears(skip=("node0", "node1")).wanted(model_of(QKV))[Statistic.CHANNEL_EXTREMES]) == []
    )


def test_every_method_reads_only_what_is_asked_for_it():
    x = activation((2, 30, K)).reshape(-1, K)
    for method in ("minmax", "average", "percentile", "mse", "token", "level"):
        a_pass = QuantizeLinears(method=method, rounding="feedback")
        kinds = list(a_pass.wanted(model_of(QKV)))
        statistics = Statistics({"x": TensorStatistics.of(x, kinds)})
        quantized(model_of(QKV), statistics, a_pass)


def test_options_are_words():
    text = (
        "quantize-linears{method=token,weight_bits=4,activation_bits=6,rounding=drop,correct_bias=true,"
        'weight_range=mse,ranges=[["x",-1.5,2.0]],rank=4,activation=symmetric,only=["a"]}'
    )
    made = parse_pass(text)
    assert made.ranges == (("x", -1.5, 2.0),)
    assert parse_pass(format_pass(made)) == made


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("weight_bits", 1),
        ("weight_bits", 9),
        ("activation_bits", 9),
        ("probability", 1.5),
        ("percentile", 0.9),
    ],
)
def test_options_have_their_limits(option, value):
    with pytest.raises(UsageProblem, match=f"{option} is {value}"):
        QuantizeLinears(**{option: value})


def test_ranges_of_tokens_and_samples_are_inside_what_was_seen():
    x = activation((50, K))
    x[7] *= 40
    statistics = seen(x)["x"]
    whole = choose_range(statistics, "minmax", 100)
    cut = choose_range(statistics, "token", 95.0)
    assert whole[0] < cut[0] < cut[1] < whole[1]
    assert cut[1] < 0.2 * whole[1]
    sample = TensorStatistics.of(x, sample=1).merge(TensorStatistics.of(x * 0.01, sample=2))
    average = choose_range(sample, "average", 100)
    assert average[1] == pytest.approx(whole[1] * 0.505)

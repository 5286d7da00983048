"""What emission writes computes what was meant, integer by integer, and lands in the kernel it is for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.quantize.linears import Form, QuantizeLinears
from onnxq.pipeline import PassResult, apply_pass
from onnxq.runtime import confirm_kernels, expected_kernels, kernels_of, open_session, optimized_graph
from onnxq.statistics import Statistics, TensorStatistics
from tests.graphs import check, ops_of, outputs_of
from tests.passes.quantize.integers import (
    BODIES,
    CASES,
    SHAPES,
    K,
    N,
    Reference,
    activation,
    constants,
    model_of,
    seen,
)

every_case = pytest.mark.parametrize(("body", "shape"), CASES)
both_forms = pytest.mark.parametrize("form", ["kernel", "qdq"])
LAYER = "node0"


def quantized(model: ir.Model, statistics: Statistics, a_pass: QuantizeLinears) -> ir.Model:
    result = apply_pass(model, a_pass, statistics)
    assert result.modified, result.rejects
    assert result.settled
    check_model(result)
    return result.model


def check_model(result: PassResult) -> None:
    if "com.microsoft" not in result.model.opset_imports:
        check(result.model)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return outputs_of(model, {"x": x})["y"]


def assert_landed(model: ir.Model, products: int) -> None:
    expected = expected_kernels(model)
    landings = confirm_kernels(expected, optimized_graph(model))
    assert [landing.reason for landing in landings if not landing.landed] == []
    assert len(landings) == products


def close(found: np.ndarray, expected: np.ndarray, slack: float = 0.0) -> None:
    """Within a few roundings of float32 at the size of the output, and `slack`."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * float(np.abs(expected).max()) + slack)


@every_case
def test_the_kernel_form_is_the_integer_product(body: str, shape: str) -> None:
    dims, size = SHAPES[shape]
    x = activation(size)
    model = quantized(model_of(BODIES[body], dims), seen(x), QuantizeLinears())
    assert sorted(ops_of(model)) == ["MatMulIntegerToFloat", "QuantizeLinear"]
    close(run(model, x), Reference.of(BODIES[body]).static(x, float(x.min()), float(x.max())))


@every_case
def test_the_qdq_form_is_the_same_but_for_the_rounding_of_its_bias(body: str, shape: str) -> None:
    dims, size = SHAPES[shape]
    x = activation(size)
    model = quantized(model_of(BODIES[body], dims), seen(x), QuantizeLinears(form="qdq"))
    assert set(ops_of(model)) <= {"QuantizeLinear", "DequantizeLinear", "MatMul", "Add"}
    reference = Reference.of(BODIES[body])
    step = float(reference.weight_codes()[1].max() * (x.max() - x.min()) / 255)
    expected = reference.static(x, float(x.min()), float(x.max()))
    close(run(model, x), expected, step / 2)
    close(open_session(model).run({"x": x})["y"], expected, step / 2)


@pytest.mark.parametrize("opset", [13, 17, 18, 23])
@pytest.mark.parametrize("shape", ["two axes", "three axes", "one token", "four axes"])
@pytest.mark.parametrize("body", ["product", "sum"])
def test_the_form_with_a_scale_per_token(body: str, shape: str, opset: int) -> None:
    dims, size = SHAPES[shape]
    x = activation(size)
    a_pass = QuantizeLinears(per_token=(LAYER,))
    model = quantized(model_of(BODIES[body], dims, opset), Statistics({}), a_pass)
    expected = Reference.of(BODIES[body]).by_token(x)
    # x / scale may fall on the other side of a half by one rounding: one step of one element.
    close(run(model, x), expected, float(np.abs(x).max() / 127 * 1e-3))
    close(open_session(model).run({"x": x})["y"], expected, float(np.abs(x).max() / 127 * 1e-3))


def test_a_token_of_zeros_is_no_division_by_zero() -> None:
    x = activation((2, 3, K))
    x[1, 2] = 0
    model = quantized(model_of(BODIES["sum"]), Statistics({}), QuantizeLinears(per_token=(LAYER,)))
    np.testing.assert_array_equal(run(model, x)[1, 2], constants()["b"])


def test_a_towering_token_spoils_a_fixed_range_and_no_scale_of_its_own() -> None:
    x = activation((1, 32, K))
    x[0, 0] *= 300
    body = BODIES["product"]
    exact = x @ constants()["w"]
    errors = {}
    for name, a_pass in (("static", QuantizeLinears()), ("token", QuantizeLinears(per_token=(LAYER,)))):
        found = run(quantized(model_of(body), seen(x), a_pass), x)
        errors[name] = float(np.abs(found - exact)[0, 1:].max())
    assert errors["token"] < errors["static"] / 20


@both_forms
@pytest.mark.parametrize("bits", [7, 8])
def test_weights_keep_to_their_bits(form: Form, bits: int) -> None:
    x = activation((2, 3, K))
    model = quantized(model_of(BODIES["sum"]), seen(x), QuantizeLinears(form=form, weight_bits=bits))
    weights = [
        value.const_value.numpy()
        for value in model.graph.initializers.values()
        if value.const_value.numpy().dtype == np.int8 and value.const_value.numpy().ndim == 2
    ]
    top = {7: 63, 8: 127}[bits]
    assert [int(np.abs(weight.astype(int)).max()) for weight in weights] == [top]
    close(run(model, x), Reference.of(BODIES["sum"], top).static(x, float(x.min()), float(x.max())))


@both_forms
@every_case
def test_every_product_lands_in_a_kernel(body: str, shape: str, form: Form) -> None:
    dims, size = SHAPES[shape]
    model = quantized(model_of(BODIES[body], dims), seen(activation(size)), QuantizeLinears(form=form))
    assert_landed(model, 1)


@both_forms
@pytest.mark.parametrize(
    ("bias", "dims"),
    [("m = MatMul(x, w) a = Add(m, b)", dims) for dims in ("N,64", "6,64", "2,3,64", "B,T,64")]
    + [("a = Gemm(x, w, b)", dims) for dims in ("N,64", "6,64")],
)
@pytest.mark.parametrize("function", ["Relu", "LeakyRelu", "Tanh", "Sigmoid", "Elu", "Softplus", "Erf"])
def test_activations_behind_do_not_pull_a_product_out_of_its_kernel(
    form: Form, dims: str, function: str, bias: str
) -> None:
    x = activation((2, 3, K) if dims.count(",") == 2 else (6, K))
    given = model_of(f"{bias} h = {function}(a) y = Mul(h, b)", dims)
    model = quantized(given, seen(x), QuantizeLinears(form=form))
    assert_landed(model, 1)
    exact = run(given, x)
    assert np.linalg.norm(open_session(model).run({"x": x})["y"] - exact) < 0.1 * np.linalg.norm(exact)


QKV = (
    "q = MatMul(x, w) k = MatMul(x, v) a = Add(k, b) m = MatMul(x, w) c = Add(m, b) s = Mul(q, a) "
    "y = Mul(s, c)"
)


@both_forms
@pytest.mark.parametrize("dims", ["B,T,64", "2,3,64", "N,64"])
def test_products_of_one_activation_share_one_quantize(form: Form, dims: str) -> None:
    x = activation((2, 3, K) if dims.count(",") == 2 else (6, K))
    model = quantized(model_of(QKV, dims), seen(x), QuantizeLinears(form=form))
    assert ops_of(model).count("QuantizeLinear") == 1
    assert_landed(model, 3)


def test_products_of_one_activation_share_the_scales_of_its_tokens() -> None:
    x = activation((2, 3, K))
    model = quantized(model_of(QKV), Statistics({}), QuantizeLinears(per_token=("node0", "node1", "node3")))
    ops = ops_of(model)
    assert [ops.count(each) for each in ("ReduceMax", "ReduceMin", "Reciprocal", "QuantizeLinear")] == [1] * 4
    exact = run(model_of(QKV), x)
    assert np.abs(run(model, x) - exact).max() < 0.05 * np.abs(exact).max()
    assert_landed(model, 3)


def test_forms_may_differ_on_one_activation() -> None:
    x = activation((2, 3, K))
    model = quantized(model_of(QKV), seen(x), QuantizeLinears(per_token=("node1",), skip=("node3",)))
    assert ops_of(model).count("QuantizeLinear") == 2
    assert ops_of(model).count("MatMul") == 1
    exact = run(model_of(QKV), x)
    assert np.abs(run(model, x) - exact).max() < 0.05 * np.abs(exact).max()
    assert_landed(model, 2)


@both_forms
@pytest.mark.parametrize("dims", ["B,T,64", "N,64"])
def test_columns_of_zeros_and_of_next_to_nothing(form: Form, dims: str) -> None:
    """A dead channel's bias is many steps of its own tiny scale."""
    w = constants()["w"].copy()
    w[:, 3], w[:, 4], w[:, 5] = 0, 1e-20, 1e-42
    x = activation((2, 3, K) if dims.count(",") == 2 else (6, K))
    model = quantized(model_of(BODIES["sum"], dims, w=w), seen(x), QuantizeLinears(form=form))
    expected = np.broadcast_to(constants()["b"][3:6], (*x.shape[:-1], 3))
    np.testing.assert_allclose(run(model, x)[..., 3:6], expected, atol=0.02)
    assert_landed(model, 1)


@both_forms
def test_an_activation_of_zeros(form: Form) -> None:
    x = np.zeros((2, 3, K), np.float32)
    model = quantized(model_of(BODIES["sum"]), seen(x), QuantizeLinears(form=form))
    np.testing.assert_allclose(run(model, x), np.broadcast_to(constants()["b"], (2, 3, N)), atol=0.02)


@both_forms
def test_a_tied_table_that_is_to_stay_float_is_left_to_its_gather(form: Form) -> None:
    table = np.random.default_rng(0).normal(size=(N, K)).astype(np.float32)
    body = (
        "r = ReduceMax<keepdims = 0>(x) i = Cast<to = 7>(r) e = Gather(table, i) h = Add(x, e) "
        "turned = Transpose<perm = [1, 0]>(table) y = MatMul(h, turned)"
    )
    x = activation((2, 3, K))
    model = model_of(body, table=table)
    result = quantized(model, seen(x, "h"), QuantizeLinears(form=form, float_tables=("*",)))
    np.testing.assert_array_equal(result.graph.initializers["table"].const_value.numpy(), table)
    exact = run(model, x)
    assert np.abs(run(result, x) - exact).max() < 0.05 * np.abs(exact).max()


@both_forms
def test_a_linear_inside_a_branch_reads_what_was_seen_outside(form: Form) -> None:
    body = (
        "r = ReduceMax(x) z = Sub(r, r) c = Equal(r, z) "
        "y = If(c) <then_branch = t () => (float[B,T,48] p) { p = MatMul(x, v) }, "
        "else_branch = e () => (float[B,T,48] q) { m = MatMul(x, w) q = Add(m, b) }>"
    )
    x = activation((2, 3, K))
    model = quantized(model_of(body), seen(x), QuantizeLinears(form=form))
    expected = Reference.of(BODIES["sum"]).static(x, float(x.min()), float(x.max()))
    step = float(np.abs(expected).max() * 1e-3)
    close(run(model, x), expected, step)
    assert_landed(model, 2)


def test_a_value_of_a_function_is_not_taken_for_its_namesake_outside() -> None:
    """Names inside a function mean nothing outside: statistics of `x` are of the graph's x alone."""
    body = """<ir_version: 8, opset_import: ["" : 17, "here" : 1]>
        g (float[B,T,64] x, float[64,48] weight) => (float[B,T,48] y) { s = Tanh(x) y = here.f(s) }
        <domain: "here", opset_import: ["" : 17]> f (x) => (y) { w = Constant<value = float[64,48] {WEIGHT}>()
        y = MatMul(x, w) }"""
    text = body.replace("WEIGHT", ", ".join(["0.5"] * (K * N))).replace(", float[64,48] weight", "")
    import onnx.parser

    model = ir.from_proto(onnx.parser.parse_model(text))
    statistics = seen(np.full((4, K), 1000.0, np.float32))
    result = apply_pass(model, QuantizeLinears(), statistics)
    assert not result.modified
    assert "no statistics" in result.rejects[0].reason


@both_forms
def test_methods_differ_where_there_are_outliers(form: Form) -> None:
    x = activation((4, 500, K))
    x[0, 0, 0] = 500.0
    body = BODIES["product"]
    exact = x[1:] @ constants()["w"]
    errors = {
        method: float(
            (
                (run(quantized(model_of(body), seen(x), QuantizeLinears(form, method)), x)[1:] - exact) ** 2
            ).mean()
        )
        for method in ("minmax", "percentile", "mse")
    }
    assert errors["percentile"] < errors["minmax"] / 10
    assert errors["mse"] < errors["minmax"]


REFUSED = {
    "told to stay float": (QuantizeLinears(skip=(LAYER,)), {}),
    "too small to pay": (QuantizeLinears(least=K), {}),
    "no scale per token": (QuantizeLinears(form="qdq", per_token=(LAYER,)), {}),
    "no statistics": (QuantizeLinears(), {"statistics": Statistics({})}),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_stays_float_says_why(told: str) -> None:
    a_pass, given = REFUSED[told]
    statistics = given.get("statistics", seen(activation((6, K))))
    result = apply_pass(model_of(BODIES["product"]), a_pass, statistics)
    assert not result.modified
    assert told in result.rejects[0].reason


def test_a_weight_that_is_quantized_already_is_left_alone() -> None:
    x = activation((2, 3, K))
    once = quantized(model_of(BODIES["sum"]), seen(x), QuantizeLinears(form="qdq"))
    again = apply_pass(once, QuantizeLinears(form="qdq"), Statistics(dict.fromkeys("xm", seen(x)["x"])))
    assert not again.modified


def test_same_model_same_bytes() -> None:
    x = activation((2, 3, K))
    made = [
        ir.to_proto(quantized(model_of(QKV), seen(x), QuantizeLinears(per_token=("node1",))))
        for _ in range(2)
    ]
    assert made[0].SerializeToString() == made[1].SerializeToString()


def test_kernels_are_those_that_were_written() -> None:
    x = activation((2, 3, K))
    model = quantized(model_of(QKV), seen(x), QuantizeLinears())
    assert kernels_of(optimized_graph(model)) == {"MatMulIntegerToFloat": 3}


def test_statistics_without_numbers_are_no_range() -> None:
    """What only bounded samples of tokens tell is not where the tensor ends."""
    empty = Statistics({"x": TensorStatistics(count=4)})
    result = apply_pass(model_of(BODIES["product"]), QuantizeLinears(), empty)
    assert not result.modified
    assert "statistics" in result.rejects[0].reason

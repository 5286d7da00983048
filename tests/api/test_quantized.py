"""What `inspect` and `optimize` make of models that are quantized already, by whatever tool."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq import api
from onnxq.api.optimization import confirm_landings
from onnxq.errors import VerificationFailed
from onnxq.recipe import OptimizeSettings
from onnxq.runtime import count_quantized
from onnxq.runtime.traps import REASONS
from onnxq.targets import TARGETS
from tests.api.models import small
from tests.graphs import model_of

DYNAMIC = """g (float[b, s, 2] x) => (float[b, s, 2] y)
    <int8[2,2] w = {1, 2, 3, 4}, int8 z = {0}, float sw = {0.1}> {
    q, sx, zx = DynamicQuantizeLinear(x)
    m = MatMulInteger(q, w, zx, z) f = Cast<to = 1>(m) t = Mul(sx, sw) y = Mul(f, t) }"""


def quantized(*, axis: int = 1, activation: str = "uint8", copies: int = 1) -> ir.Model:
    """Products of one Q/DQ activation with int8 weights whose scales lie along `axis`."""
    weight = ", ".join(str(number * 7 % 23 - 11) for number in range(16))
    constants = [f"float sx = {{0.02}}, {activation} zx = {{{128 if activation == 'uint8' else 0}}}"]
    products, outputs = [], []
    for copy in range(copies):
        constants.append(
            f"int8[4,4] w{copy} = {{{weight}}}, float[4] s{copy} = {{0.1, 0.2, 0.3, 0.{4 + copy}}}, "
            f"int8[4] z{copy} = {{0, 0, 0, 0}}"
        )
        products.append(
            f"f{copy} = DequantizeLinear<axis = {axis}>(w{copy}, s{copy}, z{copy})"
            f"  y{copy} = MatMul(d, f{copy})"
        )
        outputs.append(f"float[b, s, 4] y{copy}")
    body = "q = QuantizeLinear(x, sx, zx)  d = DequantizeLinear(q, sx, zx)  " + "  ".join(products)
    model = model_of(f"g (float[b, s, 4] x) => ({', '.join(outputs)}) <{', '.join(constants)}> {{ {body} }}")
    for number, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{number}"
    return model


def test_kernels_that_are_reached_are_counted() -> None:
    found = api.inspect(quantized(copies=2))
    assert found.kernels == {"MatMulIntegerToFloat": 2}
    assert found.traps == ()
    assert found.hints == ("All 2 quantized nodes reach their low-precision kernels.",)


@pytest.mark.parametrize(
    ("case", "slug"),
    [
        ({"axis": 0}, "scale-per-row-fused"),
        ({"activation": "int8", "copies": 2}, "shared-signed-activation"),
    ],
)
def test_products_that_fall_into_a_trap_are_named_once_each(case: dict[str, object], slug: str) -> None:
    model = quantized(**case)  # type: ignore[arg-type]
    found = api.inspect(model)
    assert {trap.reason for trap in found.traps} == {REASONS[slug]}
    products = [str(node.name) for node in model.graph if node.op_type == "MatMul"]
    assert [trap.node for trap in found.traps] == products
    assert found.hints == (
        f"{len(products)} nodes run slowly or wrongly in ONNX Runtime; the table says why.",
    )


def test_a_model_that_the_runtime_refuses_is_inspected_all_the_same() -> None:
    model = quantized()
    unknown = ir.node("Op", model.graph.outputs, domain="here", name="unknown")
    model.graph.append(unknown)
    model.graph.outputs[0] = unknown.outputs[0]
    found = api.inspect(model)
    assert found.kernels == {}
    assert len(found.hints) == 1
    assert "here:Op" in found.hints[0]


def test_a_float_model_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxq.api.quantized.optimized_graph", lambda *_, **__: pytest.fail("opened"))
    found = api.inspect(model_of("g (float[b, 4] x) => (float[b, 4] y) { y = Relu(x) }"))
    assert found.kernels == {}
    assert found.hints == ("With --calib DATA the outliers of its activations are shown too.",)


def test_a_scale_for_the_whole_batch_is_named_as_a_trap() -> None:
    model = model_of(DYNAMIC)
    next(iter(model.graph)).name = "rounded"
    found = api.inspect(model)
    assert [(trap.node, trap.reason) for trap in found.traps] == [("rounded", REASONS["scale-of-the-batch"])]
    assert "run slowly or wrongly" in found.hints[0]


def test_a_product_that_came_quantized_is_not_taken_for_one_of_onnxqs() -> None:
    """Of its own products onnxq demands that they reach their kernels; another tool's may miss them."""
    model, target = quantized(activation="int8", copies=2), TARGETS["x86-vnni"]
    assert confirm_landings(model, target, model) == {}
    with pytest.raises(VerificationFailed, match="2 of 2 quantized products miss their kernel"):
        confirm_landings(model, target, small())


def test_what_came_quantized_is_known_again_under_another_output() -> None:
    """Cleaning drops what stands behind a product, which then gives the output itself."""
    model, target = quantized(activation="int8", copies=2), TARGETS["x86-vnni"]
    given = quantized(activation="int8", copies=2)
    for value in given.graph.outputs:
        value.name = f"{value.name} before its Identity"
    assert confirm_landings(model, target, given) == {}


@pytest.mark.parametrize(("model", "count"), [(quantized(copies=2), 2), (model_of(DYNAMIC), 1), (small(), 0)])
def test_products_that_came_quantized_are_counted(model: ir.Model, count: int) -> None:
    assert count_quantized(model) == count


def test_the_report_says_that_products_came_quantized() -> None:
    data = {"x": np.random.default_rng(2).normal(size=(16, 2, 4)).astype(np.float32)}
    settings = OptimizeSettings(target="x86-vnni", effort="fast", threads=1, verify="never")
    hints = " ".join(api.optimize(quantized(), data, settings=settings).report.hints)
    assert "1 products came quantized" in hints
    assert "No linear was found" not in hints

"""Every rule fires on a graph with its form, and on no graph without it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.targets import TARGETS, violations
from onnxq.targets.rules import FOREIGN, RULES

ALL = dataclasses.replace(TARGETS["qdq"], forbidden=dict.fromkeys((*RULES, FOREIGN), "no reason at all"))
Q = "q = QuantizeLinear(x, s, zu)  d = DequantizeLinear(q, s, zu)"
"""A uint8 activation with its zero point, and back."""
W = "v = DequantizeLinear<axis = 1>(w, ws, wz)"
"""An int8 weight with a scale for each column."""
ROWS = "v = DequantizeLinear<axis = 0>(w, ws, wz)"
"""An int8 weight with a scale for each row."""
PRODUCT = f"{Q}  {W}  p = MatMul(d, v)"
AGAIN = "pq = QuantizeLinear(p, s, zu)  y = DequantizeLinear(pq, s, zu)"
RIGHT = "r = Transpose(x)  e = QuantizeLinear(r, s, zi)  k = DequantizeLinear(e, s, zi)"
PAIR = "tq = QuantizeLinear(t, s, zu)  td = DequantizeLinear(tq, s, zu)"

FORMS = {
    "signed-activation": "q = QuantizeLinear(x, s, zi)  y = DequantizeLinear(q, s, zi)",
    "unsigned-activation": "q = QuantizeLinear(x, s)  y = DequantizeLinear(q, s)",
    "asymmetric-activation": "q = QuantizeLinear(x, s, three)  y = DequantizeLinear(q, s, three)",
    "quantized-activation": f"{Q}  y = Identity(d)",
    "activation-scale-per-channel": "q = QuantizeLinear(x, ws, wz)  y = DequantizeLinear(q, ws, wz)",
    "quantized-product-output": (
        f"{PRODUCT}  pq = QuantizeLinear(p, s, zu)  pd = DequantizeLinear(pq, s, zu)  y = Relu(pd)"
    ),
    "quantized-softmax": f"{Q}  p = Softmax(d)  {AGAIN}",
    "quantized-norm": f"{Q}  y = LayerNormalization(d, gamma)",
    "quantized-gelu": f"{Q}  y = Gelu(d)",
    "quantized-residual": f"{Q}  y = Add(d, x)",
    "unsigned-weight": f"{Q}  v = DequantizeLinear<axis = 1>(u, ws, uz)  y = MatMul(d, v)",
    "asymmetric-weight": f"{Q}  v = DequantizeLinear<axis = 1>(w, ws, wt)  y = MatMul(d, v)",
    "wide-weight": f"{Q}  v = DequantizeLinear<axis = 1>(wide, ws, wz)  y = MatMul(d, v)",
    "weight-scale-per-row": f"{Q}  {ROWS}  y = MatMul(d, v)",
    "dequantized-table": f"{W}  g = Gather(v, ids)  y = Add(x, g)",
    "dequantized-weight": f"{W}  y = MatMul(x, v)",
    "integer-bias": f"{Q}  {W}  p = MatMul(d, v)  b = DequantizeLinear<axis = 0>(bias, ws)  y = Add(p, b)",
    "skip-layer-norm": "y = com.microsoft.SkipLayerNormalization(x, x, gamma)",
    "scale-of-the-batch": "q = DynamicQuantizeLinear(x)  y = Identity(x)",
    "operator-without-kernel": "y = com.microsoft.QLinearSigmoid(x)",
    "narrow-blocks": "y = com.microsoft.MatMulNBits<K=4, N=4, bits=2, block_size=32>(x, nb, ns)",
    "odd-blocks": "y = com.microsoft.MatMulNBits<K=4, N=4, bits=4, block_size=16>(x, nb, ns)",
    FOREIGN: "y = com.microsoft.FastGelu(x)",
}
BESIDE = {
    "unsigned-activation": {"quantized-activation"},
    "signed-activation": {"quantized-activation"},
    "asymmetric-activation": {"quantized-activation", "unsigned-activation"},
    "activation-scale-per-channel": {"quantized-activation", "signed-activation"},
    "quantized-activation": {"unsigned-activation"},
    "scale-of-the-batch": {
        "quantized-activation",
        "unsigned-activation",
        "asymmetric-activation",
        "operator-without-kernel",
    },
    "operator-without-kernel": {FOREIGN},
    "narrow-blocks": {FOREIGN},
    "odd-blocks": {FOREIGN},
    "skip-layer-norm": {FOREIGN},
}
"""What else is wrong with a form; a rounded activation is uint8 unless it says otherwise."""

CONSTANTS = {
    "s": np.float32(0.1),
    "zu": np.uint8(0),
    "zi": np.int8(0),
    "three": np.uint8(3),
    "w": np.arange(16, dtype=np.int8).reshape(4, 4) - 8,
    "wide": np.full((4, 4), 64, np.int8),
    "u": np.arange(16, dtype=np.uint8).reshape(4, 4),
    "ws": np.full(4, 0.1, np.float32),
    "wz": np.zeros(4, np.int8),
    "wt": np.full(4, 2, np.int8),
    "uz": np.zeros(4, np.uint8),
    "gamma": np.ones(4, np.float32),
    "ids": np.array([1, 2], np.int64),
    "last": np.array([-1], np.int64),
    "bias": np.array([1, 2, 3, 4], np.int32),
    "nb": np.zeros((4, 1, 16), np.uint8),
    "ns": np.ones((4, 1), np.float32),
}


def model_of(body: str) -> ir.Model:
    """A model of x [2, 4] with whichever of `CONSTANTS` the body reads."""
    header = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>'
    proto = onnx.parser.parse_model(f"{header} g (float[2, 4] x) => (float[2, 4] y) {{ {body} }}")
    read = {name for node in proto.graph.node for name in node.input}
    for name in sorted(read & set(CONSTANTS)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(CONSTANTS[name]), name))
    return ir.from_proto(proto)


def slugs_of(body: str) -> set[str]:
    return {each.slug for each in violations(model_of(body), ALL)}


@pytest.mark.parametrize("slug", FORMS)
def test_a_rule_fires_on_its_form_and_on_nothing_beside(slug):
    found = slugs_of(FORMS[slug])
    assert slug in found
    quantized = {"quantized-activation", "unsigned-activation"} if Q in FORMS[slug] else set()
    assert found - {slug} <= quantized | BESIDE.get(slug, set())


def test_every_rule_has_its_form():
    assert set(FORMS) == {*RULES, FOREIGN}


@pytest.mark.parametrize(
    ("slug", "body"),
    [
        ("unsigned-activation", "q = QuantizeLinear(x, s, zi)  y = DequantizeLinear(q, s, zi)"),
        ("signed-activation", "q = QuantizeLinear(x, s)  y = DequantizeLinear(q, s)"),
        ("quantized-activation", f"{W}  y = MatMul(x, v)"),
        ("signed-activation", f"{Q}  {RIGHT}  p = MatMul(d, k)  y = MatMul(p, x)"),
        ("quantized-product-output", f"{PRODUCT}  t = Identity(p)  {PAIR}  y = MatMul(td, v)"),
        ("quantized-softmax", f"t = Softmax(x)  {PAIR}  y = Identity(td)"),
        ("quantized-residual", f"{Q}  y = Add(d, gamma)"),
        ("weight-scale-per-row", f"{Q}  {ROWS}  t = Transpose<perm = [1, 0]>(v)  y = MatMul(d, t)"),
        ("weight-scale-per-row", f"{Q}  {ROWS}  y = Gemm<transB = 1>(d, v)"),
        ("dequantized-weight", f"{Q}  {W}  y = MatMul(d, v)"),
        ("dequantized-table", "g = Gather(w, ids)  y = DequantizeLinear(g, s)"),
        ("wide-weight", f"{Q}  {W}  y = MatMul(d, v)"),
    ],
)  # fmt: skip
def test_a_rule_is_silent_on_a_near_form(slug, body):
    assert slug not in slugs_of(body)


@pytest.mark.parametrize(
    ("slug", "codes", "scale", "zero"),
    [
        ("unsigned-weight", "u", "ws", "uz"),
        ("asymmetric-weight", "w", "ws", "wt"),
        ("wide-weight", "wide", "ws", "wz"),
        (None, "w", "ws", "wz"),
    ],
)
def test_rules_about_weights_read_kernels_too(slug, codes, scale, zero):
    inputs = f"q, {codes}, s, {scale}, zu, {zero}"
    body = f"q = QuantizeLinear(x, s, zu)  y = com.microsoft.MatMulIntegerToFloat({inputs})"
    about_weights = {each for each in slugs_of(body) if each.endswith("weight")}
    assert about_weights == ({slug} if slug else set())


def test_a_scale_for_each_token_is_no_scale_for_each_channel():
    body = (
        "q = QuantizeLinear(x, s, zu)  m = ReduceMax<keepdims = 1>(x, ids)  "
        "y = com.microsoft.MatMulIntegerToFloat(q, w, m, ws, zu, wz)"
    )
    model = model_of(body)
    [largest] = [node.outputs[0] for node in model.graph if node.op_type == "ReduceMax"]
    largest.shape = ir.Shape([2, 1])
    assert "activation-scale-per-channel" not in {each.slug for each in violations(model, ALL)}
    largest.shape = ir.Shape([1, 4])
    assert "activation-scale-per-channel" in {each.slug for each in violations(model, ALL)}


def test_a_violation_says_where_and_why_and_who():
    model = model_of(FORMS["signed-activation"])
    node = model.graph[0]
    node.name = "round"
    node.metadata_props["onnxq.pass"] = "quantize-linears"
    [found] = violations(model, TARGETS["x86-vnni"])
    assert (found.node, found.op, found.owner) == ("round", "QuantizeLinear", "quantize-linears")
    assert "a fifth of the speed" in str(found)
    assert violations(model, TARGETS["tensorrt"]) == []


def test_functions_of_the_model_are_not_foreign():
    text = """<ir_version: 10, opset_import: ["": 21, "own": 1]>
    g (float[2, 4] x) => (float[2, 4] y) { y = own.twice(x) }
    <opset_import: ["": 21], domain: "own"> twice (a) => (b) { b = Add(a, a) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    assert violations(model, TARGETS["openvino"]) == []


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.provider == "cpu"])
def test_no_target_of_cpus_takes_a_scale_for_the_whole_batch(name):
    assert "scale-of-the-batch" in TARGETS[name].forbidden
    alone = "y = com.microsoft.DynamicQuantizeMatMul(x, w, ws, wz)"
    for body in (FORMS["scale-of-the-batch"], alone):
        assert "scale-of-the-batch" in {each.slug for each in violations(model_of(body), TARGETS[name])}
    by_token = (
        "m = ReduceMax<keepdims = 1>(x, last)  e = Div(x, m)  q = QuantizeLinear(e, s, zu)  y = Identity(x)"
    )
    found = {each.slug for each in violations(model_of(by_token), TARGETS[name])}
    assert "scale-of-the-batch" not in found, "a scale for each token depends on that token alone"

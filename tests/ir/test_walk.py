"""Walking graphs, subgraphs and functions; reading constants wherever they are."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxq.ir.walk import (
    axes_of,
    constant_dtype,
    constant_of,
    constant_shape,
    is_overridable,
    is_scalar_close,
    nodes,
    root_of,
)

W = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_nodes_of_graph_subgraphs_and_functions_in_order():
    model = ir.from_onnx_text("""
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[2] x, bool c) => (float[2] y) {
        h = Relu(x)
        k = If(c) <then_branch = t () => (float[2] p) { p = Neg(h) },
                   else_branch = e () => (float[2] q) { q = Abs(h) }>
        y = own.f(k)
    }
    <domain: "own", opset_import: ["" : 17]> f (a) => (b) { b = Exp(a) }""")
    assert [node.op_type for node in nodes(model)] == ["Relu", "If", "Neg", "Abs", "f", "Exp"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("v = Identity(w)", W),
        ("v = Cast<to = 10>(w)", W.astype(np.float16)),
        ("v = Cast<to = 16>(w)", W.astype(ml_dtypes.bfloat16)),
        ("v = Transpose(w)", W.T),
        ("v = Reshape(w, s)", W.reshape(2, 6)),
        ("v = Reshape(w, z)", W.reshape(3, 2, 2)),
        ("v = Unsqueeze(w, a)", W[None, :, :, None]),
        ("u = Unsqueeze(w, a) v = Squeeze(u, a)", W),
        ("u = Unsqueeze(w, a) v = Squeeze(u)", W),
        ("u = Cast<to = 11>(w) t = Transpose<perm = [1, 0]>(u) v = Identity(t)", W.T.astype(np.float64)),
        ("v = Constant<value_ints = [4, 5]>()", np.array([4, 5])),
        ("v = Constant<value_float = 0.5>()", np.float32(0.5)),
        ("v = Constant<value = float[2] {1, 2}>()", np.array([1, 2], np.float32)),
    ],
)
def test_reads_a_constant_through_cheap_chains(body, expected, build):
    model = build(
        body + " y = Identity(v)", w=W, s=np.array([-1, 6]), z=np.array([0, 2, -1]), a=np.array([0, -1])
    )
    value = model.graph.outputs[0].producer().inputs[0]
    found = constant_of(value)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype == constant_dtype(value)
    assert constant_shape(value) == expected.shape
    assert root_of(value) is not None


@pytest.mark.parametrize(
    "body", ["v = Neg(w)", "v = Identity(x)", "v = Reshape(w, t) ", "v = Cast<to = 17>(w)"]
)
def test_anything_else_is_no_constant(body, build):
    model = build("t = Shape(x)" + body + " y = Identity(v)", w=W)
    assert constant_of(model.graph.outputs[0].producer().inputs[0]) is None


def test_an_overridable_initializer_is_no_constant(build):
    model = build("v = Transpose(w) y = MatMul(x, v)", overridable="float[3,4] w", w=W)
    value = model.graph.outputs[0].producer().inputs[1]
    assert constant_of(value) is None and constant_shape(value) is None
    assert is_overridable(value) and root_of(value) is model.graph.initializers["w"]


def test_an_argument_of_a_function_is_no_constant():
    model = ir.from_onnx_text("""
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[2] x) => (float[2] y) { y = own.f<k = 2.0>(x) }
    <domain: "own", opset_import: ["" : 17]> f <k>(a) => (b) {
        c = Constant<value_float: float = @k>()
        b = Mul(a, c)
    }""")
    multiply = next(node for node in nodes(model) if node.op_type == "Mul")
    assert constant_of(multiply.inputs[0]) is None and constant_of(multiply.inputs[1]) is None


def test_the_shape_of_a_large_cast_constant_costs_no_memory(build):
    import tracemalloc

    model = build(
        "v = Cast<to = 1>(w) t = Transpose(v) y = MatMul(x, t)", w=np.zeros((2048, 2048), np.float16)
    )
    value = model.graph.outputs[0].producer().inputs[1]
    tracemalloc.start()
    assert constant_shape(value) == (2048, 2048) and constant_dtype(value) == np.float32
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("array", "number", "expected"),
    [
        (np.float32(1.4142), 2**0.5, True),
        (np.float16(2**0.5), 2**0.5, True),
        (np.array(0.044715).astype(ml_dtypes.bfloat16), 0.044715, True),
        (np.array([[0.5]], np.float32), 0.5, True),
        (np.float32(1.41), 2**0.5, False),
        (np.array([0.5, 0.5], np.float32), 0.5, False),
        (np.float32(0), 0.0, True),
        (np.float32(1e-3), 0.0, False),
    ],
)
def test_scalars_within_the_precision_of_their_type(array, number, expected, build):
    model = build("y = Mul(x, c)", c=np.asarray(array))
    assert is_scalar_close(model.graph.initializers["c"], number) is expected


def test_axes_as_attribute_and_as_input(build):
    old = build("y = ReduceMean<axes = [-1]>(x)")
    new = build("y = ReduceMean(x, a)", opset=18, a=np.array([1, 2]))
    missing = build("y = ReduceMean(x)", opset=18)
    assert [axes_of(model.graph[0]) for model in (old, new, missing)] == [(-1,), (1, 2), None]


def test_a_target_that_is_itself_reshaped_is_not_followed(build):
    """Or each Reshape would read all those above it twice, and sixteen of them 65,536 constants."""
    body = (
        "r0 = Identity(c) "
        + "".join(f"r{i + 1} = Reshape(r{i}, r{i}) " for i in range(14))
        + "y = Mul(x, r14)"
    )
    model = build(body, c=np.array([1]))
    assert constant_of(model.graph.outputs[0].producer().inputs[1]) is None

"""Each folding rule gives the bits that the runtime gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper as nh
import onnx_ir as ir
import onnxruntime
import pytest

from onnxq.passes.clean.evaluate import _RULES, bytes_of, evaluate

RNG = np.random.default_rng(0)
F = (RNG.standard_normal((3, 4)) * 10).astype(np.float32)
G = RNG.standard_normal((4,)).astype(np.float32)
K = RNG.integers(-9, 9, (3, 4))
L = np.array([-2, 3, 7, -5])
B, C = F > 0, G > 0


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_UNCERTAIN = {
    base
    for base in range(1, 65)
    if abs(np.sqrt(np.float64(base)) - np.sqrt(np.float32(base)))
    > 0.4 * np.spacing(np.sqrt(np.float32(base)))
}
"""Numbers whose root lies so near the middle of two floats that no library can be relied on."""

CASES = [
    *[
        (op, [a, b], {})
        for op in ("Add", "Sub", "Mul", "Div")
        for a, b in ((F, G), (K, L), (F.astype(float), 3.0))
    ],
    *[(op, [F, G], {}) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")],
    ("Div", [K.astype(np.int32), L.astype(np.int32)], {}),
    ("Mod", [K, L], {}),
    ("Mod", [K, L], {"fmod": 1}),
    *[(op, [a], {}) for op in ("Neg", "Abs") for a in (F, K)],
    ("Floor", [F], {}),
    ("Ceil", [F], {}),
    ("Sqrt", [np.abs(F)], {}),
    ("Sqrt", [np.abs(RNG.standard_normal(1001).astype(np.float32))], {}),
    *[("Pow", [np.float32(base), np.float32(0.5)], {}) for base in range(1, 65) if base not in _UNCERTAIN],
    ("Pow", [np.float32(3), np.int64(2)], {}),
    ("Pow", [np.float32(1.7), np.float64(-0.5)], {}),
    ("Min", [K, L, K[0]], {}),
    ("Max", [K, L], {}),
    *[(op, [B, C], {}) for op in ("And", "Or", "Xor")],
    ("Not", [B], {}),
    ("Where", [B, F, G], {}),
    ("Reshape", [F, ints(0, -1, 2)], {}),
    ("Flatten", [F.reshape(3, 2, 2)], {"axis": -1}),
    ("Flatten", [F], {"axis": 0}),
    ("Transpose", [F.reshape(3, 2, 2)], {"perm": [1, 2, 0]}),
    ("Transpose", [F], {}),
    ("Squeeze", [F.reshape(3, 1, 4, 1), ints(1)], {}),
    ("Squeeze", [F.reshape(3, 1, 4, 1)], {}),
    ("Unsqueeze", [F, ints(0, -1)], {}),
    ("Concat", [F, F], {"axis": -1}),
    ("Gather", [F, ints(-1, 0)], {"axis": 1}),
    ("Gather", [F, np.int64(1)], {}),
    ("Slice", [F, ints(-3), ints(2**62), ints(1)], {}),
    ("Slice", [F, ints(10), ints(-(2**62)), ints(1), ints(-2)], {}),
    ("Slice", [F, ints(0, 1), ints(2, 3)], {}),
    ("Slice", [F, ints(2), ints(0), ints(0), ints(-1)], {}),
    ("Cast", [F], {"to": 7}),
    ("Cast", [F], {"to": 11}),
    ("Cast", [F], {"to": 9}),
    ("Cast", [K], {"to": 1}),
    ("Cast", [np.float64(0.1)], {"to": 1}),
    ("Cast", [np.int64(2**53 + 1)], {"to": 1}),
    ("Cast", [K.astype(np.float32)], {"to": 10}),
    ("ConstantOfShape", [ints(2, 3)], {"value": nh.from_array(ints(-1))}),
    ("ConstantOfShape", [ints(2, 0)], {}),
    ("Range", [np.int64(3), np.int64(-4), np.int64(-2)], {}),
    ("Expand", [G, ints(3, 1)], {}),
    ("Tile", [F, ints(2, 3)], {}),
    ("Size", [F], {}),
]


def test_every_rule_is_tried():
    assert {op for op, _, _ in CASES} == set(_RULES)


@pytest.mark.parametrize(("op", "arrays", "attributes"), CASES)
def test_a_rule_gives_the_bits_of_the_runtime(op, arrays, attributes):
    arrays = [np.asarray(array) for array in arrays]
    names = [f"i{k}" for k in range(len(arrays))]
    node = oh.make_node(op, names, ["y"], **attributes)
    inputs = [
        oh.make_tensor_value_info(n, oh.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    graph = oh.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    proto = oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    (expected,) = session.run(None, dict(zip(names, arrays, strict=True)))

    model = ir.from_proto(proto)
    for name, value in zip(names, model.graph.inputs, strict=True):
        value.const_value = ir.tensor(arrays[names.index(name)], name=name)
    model.graph.inputs.clear()
    for value in model.graph[0].inputs:
        model.graph.register_initializer(value)
    result = evaluate(model.graph[0], arrays)
    assert result is not None
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert result.tobytes() == expected.tobytes()
    assert bytes_of(model.graph[0], arrays) >= result.nbytes


@pytest.mark.parametrize(
    ("op", "arrays", "attributes"),
    [
        ("Div", [K, ints(0)], {}),
        ("Div", [F, np.float32(0)], {}),
        ("Mod", [K, ints(0)], {}),
        ("Cast", [np.float32(1e30)], {"to": 7}),
        ("Cast", [np.float32(np.nan)], {"to": 6}),
        ("Cast", [np.float64(1 / 3)], {"to": 10}),
        ("Cast", [ints(300)], {"to": 2}),
        ("Sqrt", [np.float32(-1)], {}),
        ("Pow", [np.float32(min(_UNCERTAIN)), np.float32(0.5)], {}),
        ("Pow", [np.float32(-1), np.float32(0.5)], {}),
        ("Gather", [F, ints(9)], {}),
        ("Reshape", [F, ints(5, 5)], {}),
        ("Add", [F.astype(np.float16), F.astype(np.float16)], {}),
        ("Range", [np.float32(0), np.float32(1), np.float32(0.1)], {}),
        ("Concat", [np.array(["a"]), np.array(["b"])], {"axis": 0}),
    ],
)
def test_what_runtimes_may_disagree_on_is_left_alone(op, arrays, attributes):
    values = [ir.Value(name=f"i{k}") for k in range(len(arrays))]
    node = ir.node(op, values, attributes)
    assert evaluate(node, [np.asarray(array) for array in arrays]) is None


def test_a_bomb_is_measured_without_lighting_it():
    node = ir.node("Expand", [ir.Value(name="x"), ir.Value(name="s")])
    assert bytes_of(node, [np.ones(1, np.float32), ints(2**20, 2**20)]) == 4 * 2**40
    node = ir.node("Range", [ir.Value(name=name) for name in "abc"])
    assert bytes_of(node, [np.int64(0), np.int64(2**40), np.int64(1)]) == 8 * 2**40

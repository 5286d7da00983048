"""Convolutions in other forms: the same numbers, whatever the shape."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx.backend.test.case.node as node_cases
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnxq.passes.layout.fold_batch_norm import FoldBatchNorm
from onnxq.passes.layout.phase_transposed_convs import PhaseTransposedConvs
from onnxq.pipeline import PassResult, apply_pass
from tests.graphs import check, ops_of, outputs_of

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))


def model_of(nodes: list[onnx.NodeProto], opset: int = 17, **constants: np.ndarray) -> ir.Model:
    """Nodes from ``x`` to ``y``, both with four axes, of sizes unknown to the model."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", None, "H", "W"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", "C", "H1", "W1"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    )


def assert_same(model: ir.Model, result: PassResult, x: np.ndarray) -> None:
    check(result.model)
    old, new = outputs_of(model, {"x": x})["y"], outputs_of(result.model, {"x": x})["y"]
    assert old.shape == new.shape
    np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5 * float(np.abs(old).max(initial=1)))


@given(
    stride=st.integers(2, 3),
    taps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    shorter=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    begins=pairs,
    ends=pairs,
    sizes=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    seed=st.integers(0, 99),
)
@quick
def test_phases_add_up_to_the_transposed_convolution(
    stride, taps, shorter, begins, ends, sizes, seed
) -> None:  # type: ignore[no-untyped-def]
    draw = np.random.default_rng(seed)
    kernel = [stride * tap - less for tap, less in zip(taps, shorter, strict=True)]
    out = [stride * (size - 1) + k - b - e for size, k, b, e in zip(sizes, kernel, begins, ends, strict=True)]
    if min(out) < 1:
        return
    weight = draw.normal(size=(3, 2, *kernel)).astype(np.float32)
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w", "b"],
        ["y"],
        strides=[stride] * 2,
        pads=[*begins, *ends],
        kernel_shape=kernel,
    )
    model = model_of([node], w=weight, b=draw.normal(size=2).astype(np.float32))
    result = apply_pass(model, PhaseTransposedConvs(waste=9.0))
    assert result.modified, result.rejects
    assert "ConvTranspose" not in ops_of(result.model)
    assert_same(model, result, draw.normal(size=(2, 3, *sizes)).astype(np.float32))


def test_kernel_equal_to_stride_needs_no_crop() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    result = apply_pass(model_of([node], w=weight), PhaseTransposedConvs())
    assert ops_of(result.model) == ["Conv", "DepthToSpace"]


def test_functions_of_single_elements_stay_next_to_the_convolution() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Clip", ["r", "", "six"], ["y"]),
    ]
    model = model_of(nodes, w=weight, six=np.asarray(np.float32(0.5)))
    result = apply_pass(model, PhaseTransposedConvs())
    assert ops_of(result.model) == ["Conv", "Relu", "Clip", "DepthToSpace", "Slice"]
    assert_same(model, result, np.random.default_rng(1).normal(size=(1, 3, 4, 5)).astype(np.float32))


def cases(op_type: str) -> list[tuple[str, onnx.ModelProto, list[np.ndarray]]]:
    """The node cases of the onnx package with `op_type`, all inputs but the first made constants."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = node_cases.collect_testcases(op_type)
    for case in collected:
        given_inputs = case.data_sets[0][0]
        if case.model.graph.node[0].op_type != op_type or not isinstance(given_inputs[0], np.ndarray):
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        names = [value.name for value in model.graph.input]
        for name, array in zip(names[1:], given_inputs[1:], strict=True):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        del model.graph.input[1:]
        found.append((case.name, model, given_inputs))
    return found


@pytest.mark.slow
def test_the_transposed_convolutions_of_the_onnx_package_with_one_stride() -> None:
    fired = 0
    for name, proto, arrays in cases("ConvTranspose"):
        if arrays[0].ndim != 4:
            continue
        node = proto.graph.node[0]
        kept = [each for each in node.attribute if each.name in ("pads", "group", "kernel_shape")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("strides", [2, 2])])
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        model = ir.from_proto(proto)
        result = apply_pass(model, PhaseTransposedConvs(waste=9.0))
        fired += result.modified
        feed = {proto.graph.input[0].name: arrays[0]}
        for key, old in outputs_of(model, feed).items():
            new = outputs_of(result.model, feed)[key]
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5, err_msg=name)
    assert fired >= 4


def test_a_batch_norm_of_opset_9_in_a_chain_is_folded() -> None:
    draw = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], epsilon=0.1),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    numbers = {name: np.abs(draw.normal(size=5)).astype(np.float32) for name in "gbmv"}
    model = model_of(nodes, opset=9, w=draw.normal(size=(5, 3, 2, 2)).astype(np.float32), **numbers)
    result = apply_pass(model, FoldBatchNorm())
    assert ops_of(result.model) == ["Conv", "Relu"]
    assert_same(model, result, draw.normal(size=(2, 3, 4, 4)).astype(np.float32))

"""Every operator that changed between opsets computes the same bits afterwards, or is refused by name."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxq.passes.clean.evidence import graph
from onnxq.passes.clean.opset_adapters import ADAPTERS
from onnxq.passes.clean.raise_opset import RaiseOpset
from tests.passes.clean.rewriting import assert_same_bits, interface, ops_of, read, rewrite

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
X4, Y4 = "float[1,2,4,4] x", "float[A,B,C,D] y"
CONVERTED = [
    (8, "y = BatchNormalization<spatial = 1>(x, one, one, one, one)", X4, Y4, "float[2] one = {1, 2}"),
    (13, "y = BatchNormalization(x, one, one, one, one)", X4, Y4, "float[2] one = {1, 2}"),
    (9, "y = Slice<starts = [-3], ends = [100], axes = [1]>(x)", None, "float[A,B] y", ""),
    (9, "y = Slice<starts = [0, 1], ends = [2, 3]>(x)", None, "float[A,B] y", ""),
    (9, "y, k = TopK<k = 2, axis = 1>(x)", None, "float[A,B] y, int64[C,D] k", ""),
    (10, "y = Clip<min = -0.5>(x)", None, None, ""),
    (10, "y = Clip<max = 0.5, min = -1.0>(x)", None, None, ""),
    (10, "y = Pad<pads = [0, 1, 0, 2], value = 3.5>(x)", None, "float[A,B] y", ""),
    (10, 'y = Pad<mode = "edge", pads = [0, 1, 0, 2]>(x)', None, "float[A,B] y", ""),
    (10, "y = Resize(x, s)", X4, Y4, "float[4] s = {1, 1, 2, 2}"),
    (10, 'y = Resize<mode = "linear">(x, s)', X4, Y4, "float[4] s = {1, 1, 1.5, 2}"),
    (12, 'y = Resize<coordinate_transformation_mode = "half_pixel">(x, r, s)', X4, Y4,
     "float[8] r = {0, 0, 0, 0, 0, 0, 0, 0}, float[4] s = {1, 1, 2, 2}"),
    (11, "a = Dropout<ratio = 0.3>(x)  y = Relu(a)", None, None, ""),
    *[(12, f"y = {op}<axis = -1>(x)", None, None, "") for op in ("Softmax", "LogSoftmax", "Hardmax")],
    (12, "y = Softmax(x)", None, None, ""),
    (12, "y = ReduceSum<axes = [1], keepdims = 0>(x)", None, "float[A] y", ""),
    (12, "y = ReduceSum(x)", None, "float[A,B] y", ""),
    (12, "y, z = Split<axis = 1, split = [1, 3]>(x)", None, "float[A,B] y, float[C,D] z", ""),
    (12, "y = Squeeze(x)", "float[1,4,1] x", "float[A] y", ""),
    (12, "y = Squeeze<axes = [0, -1]>(x)", "float[1,4,1] x", "float[A] y", ""),
    (12, "y = Unsqueeze<axes = [-1, 0]>(x)", None, "float[A,B,C,D] y", ""),
    (15, "y = RoiAlign<output_height = 2, output_width = 2>(x, r, i)", X4, Y4,
     "float[1,4] r = {0, 0, 3, 3}, int64[1] i = {0}"),
    *[(17, f"a = Abs(x)  y = Reduce{kind}<axes = [-1]>(a)", None, "float[A,B] y", "") for kind in REDUCTIONS],
    (17, "y, z = Split<axis = 1>(x)", None, "float[A,B] y, float[C,D] z", ""),
    (17, "y, z = Split<axis = 1>(x, s)", None, "float[A,B] y, float[C,D] z", "int64[2] s = {3, 1}"),
    (19, "y = DFT<axis = 1>(x)", "float[1,4,1] x", "float[A,B,C] y", ""),
    (19, "y = DFT(x)", "float[1,4,4,1] x", "float[A,B,C,D] y", ""),
    (19, "y = GridSample(x, g)", "float[1,1,4,4] x, float[1,2,2,2] g", Y4, ""),
    (19, 'y = GridSample<mode = "bicubic">(x, g)', "float[1,1,4,4] x, float[1,2,2,2] g", Y4, ""),
]  # fmt: skip
REFUSED = [
    (8, "y = BatchNormalization<spatial = 0>(x, o, o, o, o)", f"{X4}, float[2,4,4] o", Y4, "", "not spatial"),
    (13, "y, m, v, s, t = BatchNormalization(x, o, o, o, o)", X4, Y4, "float[2] o = {1, 1}", "training"),
    (11, "y, m = Dropout(x)", None, "float[N,4] y, bool[N,4] m", "", "mask is read"),
    (12, "y = Softmax<axis = 1>(x)", "float[2,3,4] x", "float[2,3,4] y", "", "several axes"),
    (12, "a = Relu(x)  y = Softmax<axis = 1>(a)", None, None, "", "several axes"),
    (10, "a = own.Op(x)  y = Clip<min = 0.0>(a)", None, None, "", "element type"),
    (10, "y = Scatter(x, i, x)", "float[2,2] x, int64[2,2] i", "float[2,2] y", "", "went with opset 11"),
    (20, "y = GroupNormalization<num_groups = 1>(x, o, o)", X4, Y4, "float[1] o = {1}", "per channel"),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "body", "inputs", "outputs", "constants"), CONVERTED)
def test_a_converted_operator_gives_the_same_bits(opset, body, inputs, outputs, constants):
    text = graph(body, inputs or "float[2,4] x", outputs or "float[2,4] y", opset=opset, constants=constants)
    before = read(text)
    result = rewrite(RaiseOpset(20), before)
    assert result.model.opset_imports[""] == 20
    assert [node.name for node in result.model.graph if node.name] == [n.name for n in before.graph if n.name]
    assert interface(result.model) == interface(before)
    assert_same_bits(before, result.model)


@pytest.mark.parametrize(("opset", "body", "inputs", "outputs", "constants", "reason"), REFUSED)
def test_what_cannot_be_converted_is_named_and_left(opset, body, inputs, outputs, constants, reason):
    text = graph(body, inputs or "float[2,4] x", outputs or "float[2,4] y", opset=opset, constants=constants)
    result = rewrite(RaiseOpset(23), read(text))
    assert not result.modified
    assert result.model.opset_imports[""] == opset
    assert reason in result.rejects[0].reason


def test_every_adapter_is_tried():
    tried = " ".join(case[1] for case in (*CONVERTED, *REFUSED))
    untried = {op for op, _ in ADAPTERS if f"{op}(" not in tried and f"{op}<" not in tried}
    assert untried == {"Scan", "Attention"}  # refused whatever they look like


def test_functions_are_raised_with_the_model_each_from_its_own_version():
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[2,4] x) => (float[2,1] y)
              { y = own.f(x) }
              <domain: "own", opset_import: ["" : 13]> f (a) => (b) { b = ReduceMax<axes = [1]>(a) }"""
    before = read(text)
    after = rewrite(RaiseOpset(18), before).model
    (function,) = after.functions.values()
    assert function.opset_imports[""] == after.opset_imports[""] == 18
    assert [node.op_type for node in function] == ["Constant", "ReduceMax"]
    assert_same_bits(before, after)


def test_an_attribute_bound_to_a_function_parameter_is_refused():
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[2,4] x) => (float[2,1] y)
              { y = own.f<axes = [1]>(x) }
              <domain: "own", opset_import: ["" : 17]> f<axes>(a) => (b)
              { b = ReduceMax<axes: ints = @axes>(a) }"""
    result = rewrite(RaiseOpset(18), read(text))
    assert "parameter of its function" in result.rejects[0].reason


def test_the_ir_version_rises_only_as_far_as_the_opset_needs():
    before = read(graph("y = Relu(x)", opset=13).replace("ir_version: 8", "ir_version: 7"))
    assert rewrite(RaiseOpset(14), before).model.ir_version == 7
    assert rewrite(RaiseOpset(21), before).model.ir_version == 10


def test_other_domains_and_later_opsets_stay():
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[2,4] x) => (float[2,4] y)
              { a = com.microsoft.Gelu(x)  y = Relu(a) }"""
    before = read(text)
    assert not rewrite(RaiseOpset(16), before).modified
    after = rewrite(RaiseOpset(20), before).model
    assert ops_of(after) == ["Gelu", "Relu"]
    assert after.opset_imports == {"": 20, "com.microsoft": 1}


def test_an_opset_nobody_knows_is_refused():
    result = rewrite(RaiseOpset(999), read(graph("y = Relu(x)")))
    assert "999" in result.rejects[0].reason


def test_weights_are_not_copied():
    before = read(
        graph(
            "a = Add(x, w)  y = ReduceMean<axes = [1]>(a)",
            outputs="float[A,B] y",
            constants="float[4] w = {1, 2, 3, 4}",
        )
    )
    after = rewrite(RaiseOpset(20), before).model
    assert isinstance(after.graph.initializers["w"].const_value, ir.TensorProtocol)
    assert after.graph.initializers["w"].const_value is before.graph.initializers["w"].const_value

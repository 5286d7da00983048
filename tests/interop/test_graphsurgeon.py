"""A graphsurgeon function runs as a pass, and nothing is lost that graphsurgeon does not know."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxq.contract import Contract
from onnxq.errors import UnsupportedModel, UsageProblem
from onnxq.files import from_proto
from onnxq.interop import GraphSurgeonPass, from_graphsurgeon, to_graphsurgeon
from onnxq.pipeline import apply_pass, broken_promise

TEXT = """<ir_version: 10, opset_import: ["" : 17, "own" : 1], domain: "their.models", model_version: 7,
           producer_name: "exporter", producer_version: "3", doc_string: "a model",
           metadata_props: ["names" : "cat, dog"]>
g (float[N,4] x, float[4] w = {1, 2, 3, 4}, bool[1] c) => (float[N,4] y)
<float[4] v = {4, 3, 2, 1}, float[N,4] a, float[N,4] b, float[4] u = {0, 0, 1, 1}>
{
    a = Mul(x, w)
    b = own.f(a)
    d = Add(b, v)
    y = If(c) <then_branch = t () => (float[N,4] p) { e = Relu(d)  p = Add(e, u) },
               else_branch = e () => (float[N,4] q) { q = Tanh(d) }>
}
<domain: "own", opset_import: ["" : 17]> f (a) => (b) { k = Neg(a)  b = Relu(k) }"""


def rich() -> onnx.ModelProto:
    """A model with something in every field that graphsurgeon drops."""
    proto = onnx.parser.parse_model(TEXT)
    graph = proto.graph
    for index, node in enumerate(graph.node):
        node.name, node.doc_string = f"node{index}", f"doc of node {index}"
        _tell(node.metadata_props, "namespace", f"layer.{index}")
    _tell(graph.metadata_props, "of", "graph")
    graph.doc_string = "the graph"
    for value in (*graph.value_info, *graph.input, *graph.output):
        value.doc_string = f"doc of {value.name}"
        _tell(value.metadata_props, "value", value.name)
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    note = graph.quantization_annotation.add(tensor_name="a")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="v")
    branch = graph.node[3].attribute[0].g
    branch.node[0].doc_string = "inside a branch"
    _tell(branch.node[0].metadata_props, "inside", "branch")
    function = proto.functions[0]
    function.doc_string = "a function"
    _tell(function.metadata_props, "of", "function")
    _tell(function.node[0].metadata_props, "inside", "function")
    function.value_info.add().CopyFrom(onnx.helper.make_tensor_value_info("k", 1, ["N", 4]))
    return ir.to_proto(from_proto(proto))


def _tell(props, key: str, value: str) -> None:
    props.add(key=key, value=value)


def surgeon(function, contract: Contract = Contract.BITWISE) -> GraphSurgeonPass:
    return GraphSurgeonPass(function, "theirs", contract)


def test_a_function_that_does_nothing_changes_no_byte():
    before = from_proto(rich())
    after = surgeon(lambda graph: None).transform(before)
    assert ir.to_proto(after) == rich()
    assert not apply_pass(before, surgeon(lambda graph: None)).modified


def test_what_stays_keeps_its_fields_while_the_function_rewrites():
    def relu_to_tanh(graph):
        (add,) = [node for node in graph.nodes if node.op == "Add"]
        add.op = "Mul"
        add.inputs[1].values = np.array([1, 1, 2, 2], np.float32)

    before = from_proto(rich())
    result = apply_pass(before, surgeon(relu_to_tanh))
    assert result.modified
    assert broken_promise(before, result.model, surgeon(relu_to_tanh)) == ""
    expected = rich()
    expected.graph.node[2].op_type = "Mul"
    weight = next(tensor for tensor in expected.graph.initializer if tensor.name == "v")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "v"))
    assert ir.to_proto(result.model) == expected


def test_a_returned_graph_replaces_the_given_one():
    def replace(graph):
        copy = graph.copy()
        copy.nodes[0].op = "Div"
        return copy

    after = surgeon(replace).transform(from_proto(rich()))
    assert after.graph[0].op_type == "Div"
    assert after.metadata_props == {"names": "cat, dog"}


def test_new_nodes_are_taken():
    def double(graph):
        import onnx_graphsurgeon as gs

        (node,) = [node for node in graph.nodes if node.op == "Relu"]
        between = gs.Variable("between", np.float32)
        (out,) = node.outputs
        node.outputs = [between]
        graph.nodes.append(gs.Node("Neg", "extra", inputs=[between], outputs=[out]))
        graph.cleanup().toposort()

    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
    after = surgeon(double).transform(from_proto(onnx.parser.parse_model(text)))
    assert [node.op_type for node in after.graph] == ["Relu", "Neg"]


def test_overridable_inputs_are_no_constants_to_the_function():
    def look(graph):
        import onnx_graphsurgeon as gs

        seen.update({name: type(tensor) is gs.Constant for name, tensor in graph.tensors().items()})
        graph.fold_constants().cleanup()

    seen: dict[str, bool] = {}
    after = surgeon(look).transform(from_proto(rich()))
    assert seen["v"]
    assert not seen["w"]
    (value,) = [value for value in after.graph.inputs if value.name == "w"]
    assert value.const_value is not None
    assert value.const_value.numpy().tolist() == [1, 2, 3, 4]


def test_a_function_that_takes_an_overridable_input_away_is_refused():
    def take(graph):
        graph.inputs = [tensor for tensor in graph.inputs if tensor.name != "w"]

    result = apply_pass(from_proto(rich()), surgeon(take))
    assert not result.modified
    assert "'w'" in result.rejects[0].reason


def test_attributes_that_graphsurgeon_skips_come_back():
    text = """<ir_version: 10, opset_import: ["" : 18]> g (float[2,3] x) => (float[2,3] y) {
        y = their.Op <empty: ints = [], axis = 1> (x) }"""
    proto = onnx.parser.parse_model(text)
    node = proto.graph.node[0]
    node.attribute.append(onnx.helper.make_attribute("kind", onnx.helper.make_tensor_type_proto(1, [2])))
    proto.opset_import.add(domain="their", version=1)
    before = from_proto(proto)
    after = surgeon(lambda graph: None).transform(before)
    assert ir.to_proto(after) == ir.to_proto(before)


def test_optional_values_are_refused_with_the_reason():
    kind = onnx.helper.make_optional_type_proto(onnx.helper.make_tensor_type_proto(1, [2]))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("OptionalGetElement", ["x"], ["y"])],
        "g",
        [onnx.helper.make_value_info("x", kind)],
        [onnx.helper.make_tensor_value_info("y", 1, [2])],
    )
    model = from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    with pytest.raises(UnsupportedModel, match="optional"):
        to_graphsurgeon(model)
    assert "optional" in apply_pass(model, surgeon(lambda graph: None)).rejects[0].reason


def test_a_function_must_return_a_graph_or_nothing():
    with pytest.raises(UsageProblem, match="returned str"):
        surgeon(lambda graph: "done").transform(from_proto(rich()))


def test_a_graph_made_from_scratch_is_a_model():
    import onnx_graphsurgeon as gs

    x, y = gs.Variable("x", np.float32, ("N", 4)), gs.Variable("y", np.float32, ("N", 4))
    graph = gs.Graph([gs.Node("Relu", inputs=[x], outputs=[y])], [x], [y], opset=17)
    model = from_graphsurgeon(graph)
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert model.opset_imports == {"": 17}

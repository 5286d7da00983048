"""What contradicts itself, and what would be lost, is refused; each with its own slug."""

import onnx
import pytest
from onnx import TensorProto, helper

from onnxq.errors import InvalidModel, UnsupportedModel
from onnxq.files import from_proto
from tests.files.models import OPSETS, linear_proto, tensor, value


def _sparse() -> onnx.SparseTensorProto:
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [0]))
    return sparse


def _function(**changes: object) -> onnx.FunctionProto:
    arguments = {
        "inputs": ["a"],
        "outputs": ["b"],
        "nodes": [helper.make_node("Relu", ["a"], ["b"])],
    } | changes
    return helper.make_function("custom", "F", opset_imports=list(OPSETS), **arguments)


def _unknown_field(message: object) -> None:
    message.MergeFromString(b"\xf8\x3f\x01")  # field 1023 = 1


def _not_text(message: object, field: int) -> None:
    message.MergeFromString(bytes([field << 3 | 2, 2]) + b"\xff\xfe")


def _map_input(model: onnx.ModelProto) -> None:
    map_type = model.graph.input.add(name="m").type.map_type
    map_type.key_type = TensorProto.INT64
    map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT


def _map_info() -> onnx.ValueInfoProto:
    model = onnx.ModelProto()
    _map_input(model)
    model.graph.input[0].name = "b"
    return model.graph.input[0]


def _sequence_of_maps(model: onnx.ModelProto) -> None:
    info = model.graph.input.add(name="m").type.sequence_type.elem_type.map_type
    info.key_type = TensorProto.INT64
    info.value_type.tensor_type.elem_type = TensorProto.FLOAT


def _node_with_graph_of_caller() -> onnx.NodeProto:
    node = helper.make_node("Any", ["a"], ["b"], domain="custom")
    node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH, ref_attr_name="body")
    return node


def _twice(entries: object) -> None:
    entries.add(key="k", value="1")
    entries.add(key="k", value="2")


UNSUPPORTED = {
    "newer-ir": lambda m: setattr(m, "ir_version", onnx.IR_VERSION + 1),
    "training-info": lambda m: m.training_info.add(),
    "sparse-initializer": lambda m: m.graph.sparse_initializer.append(_sparse()),
    "sparse-attribute": lambda m: m.graph.node[0].attribute.append(
        helper.make_attribute("sparse_value", _sparse())
    ),
    "map-type": _map_input,
    "map-type in a sequence": _sequence_of_maps,
    "opaque-type": lambda m: m.graph.input.add(name="o").type.opaque_type.SetInParent(),
    "not-implemented": lambda m: m.functions.append(_function(value_info=[_map_info()])),
    "segment": lambda m: setattr(m.graph.initializer[0].segment, "begin", 1),
    "function-default of a graph": lambda m: m.functions.append(
        _function(attribute_protos=[helper.make_attribute("g", linear_proto().graph)])
    ),
    "function-default of another default": lambda m: m.functions.append(
        _function(attribute_protos=[onnx.AttributeProto(name="a", type=1, ref_attr_name="b")])
    ),
    "graph-reference": lambda m: m.functions.append(
        _function(nodes=[_node_with_graph_of_caller()], attributes=["body"])
    ),
    "unknown-field": _unknown_field,
    "unknown-field of a graph": lambda m: _unknown_field(m.graph),
    "unknown-field of a node": lambda m: _unknown_field(m.graph.node[0]),
    "unknown-field of a dimension": lambda m: _unknown_field(m.graph.input[0].type.tensor_type.shape.dim[0]),
    "unknown-field of a tensor": lambda m: _unknown_field(m.graph.initializer[0]),
}

INVALID = {
    "no-opset": lambda m: m.ClearField("opset_import"),
    "duplicate-operator-set": lambda m: m.opset_import.append(OPSETS[0]),
    "duplicate-operator-set by another name": lambda m: m.opset_import.add(domain="ai.onnx", version=1),
    "duplicate-function": lambda m: m.functions.extend([_function(), _function()]),
    "duplicate-initializer": lambda m: m.graph.initializer.append(tensor("w", 2)),
    "duplicate-input": lambda m: m.graph.input.append(value("x", 4)),
    "duplicate-input of a function": lambda m: m.functions.append(_function(inputs=["a", "a"])),
    "duplicate-attribute": lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("a", 1)] * 2),
    "duplicate-metadata": lambda m: _twice(m.metadata_props),
    "duplicate-metadata of a node": lambda m: _twice(m.graph.node[0].metadata_props),
    "unnamed-initializer": lambda m: m.graph.initializer[0].ClearField("name"),
    "unnamed-input": lambda m: m.graph.input.append(value("", 4)),
    "unnamed-output": lambda m: m.graph.output.append(value("", 4)),
    "undefined-value": lambda m: m.graph.node[0].input.append("nowhere"),
    "undefined-value as output": lambda m: m.graph.output.append(value("nowhere", 4)),
    "undefined-value in a function": lambda m: m.functions.append(_function(outputs=["nowhere"])),
    "no-element-type": lambda m: m.graph.input[0].type.tensor_type.ClearField("elem_type"),
    "not-text in a name": lambda m: _not_text(m.graph.node[0], 3),
    "not-text in an input": lambda m: _not_text(m.graph.node[0], 1),
    "not-text in an operator": lambda m: _not_text(m.graph.node[0], 4),
    "not-text in a location": lambda m: _not_text(m.graph.initializer[0].external_data.add(), 2),
    "not-text in a dimension": lambda m: _not_text(m.graph.input[0].type.tensor_type.shape.dim.add(), 2),
    "attribute-content of another type": lambda m: m.graph.node[0].attribute.add(name="a", type=1, i=3),
    "attribute-content of two types": lambda m: m.graph.node[0].attribute.add(name="a", type=1, f=1, i=3),
    "attribute-content of a reference": lambda m: m.graph.node[0].attribute.add(
        name="a", type=1, f=1, ref_attr_name="b"
    ),
    "no-element-type of an attribute": lambda m: m.graph.node[0].attribute.add(
        name="a", type=onnx.AttributeProto.TYPE_PROTO, tp=onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor())
    ),
    "attribute-content of none": lambda m: m.graph.node[0].attribute.add(name="a", type=4),
    "untyped-attribute": lambda m: m.graph.node[0].attribute.add(name="a"),
    "unknown-dtype": lambda m: setattr(m.graph.initializer[0], "data_type", 77),
    "unknown-dtype zero": lambda m: setattr(m.graph.initializer[0], "data_type", 0),
    "data-size": lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"),
    "data-size of strings": lambda m: m.graph.initializer.append(
        TensorProto(name="s", data_type=TensorProto.STRING, dims=[3], string_data=[b"one"])
    ),
    "data-size in another field": lambda m: m.graph.initializer.append(
        TensorProto(name="s", data_type=TensorProto.DOUBLE, dims=[2], int64_data=[1, 2])
    ),
    "invalid-graph": lambda m: m.graph.node[1].output.append("xw"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_could_not_be_kept_is_refused(name):
    model = linear_proto()
    UNSUPPORTED[name](model)
    with pytest.raises(UnsupportedModel) as caught:
        from_proto(model)
    assert caught.value.slug == name.split()[0]


@pytest.mark.parametrize("name", INVALID)
def test_what_contradicts_itself_is_refused(name):
    model = linear_proto()
    INVALID[name](model)
    with pytest.raises(InvalidModel) as caught:
        from_proto(model)
    assert caught.value.slug == name.split()[0]


def test_names_of_an_outer_graph_are_visible_inside():
    inner = helper.make_graph([helper.make_node("Relu", ["xw"], ["r"])], "inner", [], [value("r", 4)])
    model = linear_proto()
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))
    assert from_proto(model)


def test_nodes_may_come_in_any_order():
    model = linear_proto()
    reversed_nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(reversed_nodes)
    assert [node.op_type for node in from_proto(model).graph] == ["Add", "MatMul"]

"""load(save(model)) keeps every field: all node cases of the onnx package, and one probe for each field."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, helper

from onnxq.files import fingerprint, from_proto, load, save, to_bytes
from tests.files.models import OPSETS, branch, linear_proto, tensor, value

TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "raw_data")


def canonical(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each of the forms that ONNX has for one meaning is written in one way."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for message in _messages(copy):
        for field, content in message.ListFields():
            if content == "":  # said to be empty, or not said
                message.ClearField(field.name)
        if isinstance(message, TensorProto) and message.data_type != TensorProto.STRING:
            data = ir.serde.TensorProtoTensor(message).tobytes()
            for name in TYPED_FIELDS:
                message.ClearField(name)
            message.raw_data = data
        elif isinstance(message, onnx.NodeProto):
            while message.output and not message.output[-1]:
                message.output.pop()
        elif isinstance(message, onnx.GraphProto):
            _drop_repeated_types(message)
        if hasattr(message, "metadata_props"):
            message.metadata_props.sort(key=lambda entry: entry.key)
    return copy


def _drop_repeated_types(graph: onnx.GraphProto) -> None:
    """An initializer's type may be said again in value_info; it says nothing new."""
    known = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in graph.initializer}
    for info in list(graph.value_info):
        shape = info.type.tensor_type.shape
        if known.get(info.name) == (info.type.tensor_type.elem_type, [dim.dim_value for dim in shape.dim]):
            graph.value_info.remove(info)


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, content in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in list(content) if field.is_repeated else [content]:
                yield from _messages(inner)


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)], ids="1 in {}".format)
def test_node_cases_come_back_whole(step: int):
    import onnx.backend.test.case.node as node_cases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = node_cases.collect_testcases(None)
    assert len(cases) >= 1800
    for case in cases[::step]:
        model = from_proto(case.model)
        written = to_bytes(model)
        again = onnx.ModelProto.FromString(written)
        assert again == case.model or canonical(again) == canonical(case.model), case.name
        second = from_proto(again)
        assert to_bytes(second) == written, case.name
        assert fingerprint(second) == fingerprint(model), case.name


def _add_metadata(message: Any) -> None:
    message.metadata_props.add(key="b", value="1")
    message.metadata_props.add(key="a", value="2")


def _annotate(name: str) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        annotation = model.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")

    return edit


def _every_attribute(model: onnx.ModelProto) -> None:
    numbers = tensor("t", 3)
    kinds: dict[str, Any] = {
        "int": 1,
        "float": 1.5,
        "string": "text",
        "ints": [1, 2],
        "floats": [0.1, 2.0],
        "strings": ["a", "b"],
        "tensor": numbers,
        "tensors": [numbers, numbers],
        "type": helper.make_tensor_type_proto(1, ["N"]),
        "types": [helper.make_tensor_type_proto(1, ["N"])],
        "graph": branch(helper.make_node("Relu", ["x"], ["r"]), output="r"),
        "graphs": [branch(helper.make_node("Relu", ["x"], ["r"]), output="r")],
    }
    node = model.graph.node.add(op_type="Any", domain="custom", output=["any"])
    for name, content in kinds.items():
        node.attribute.append(helper.make_attribute(name, content, doc_string="why"))
    node.attribute.append(helper.make_attribute("empty", [], attr_type=AttributeProto.INTS))


def _function(model: onnx.ModelProto) -> None:
    node = helper.make_node("LeakyRelu", ["a"], ["b"], name="inner", doc_string="why")
    node.attribute.add(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope")
    default = helper.make_attribute("offset", 1.0)
    function = helper.make_function(
        "custom",
        "F",
        ["a"],
        ["b"],
        [node],
        list(OPSETS),
        ["slope"],
        [default],
        doc_string="why",
        overload="one",
    )
    _add_metadata(function)
    function.value_info.extend([value("a", 4), value("b", 4)])
    model.functions.append(function)
    model.graph.node.append(helper.make_node("F", ["y"], ["z"], domain="custom", overload="one", slope=0.1))


def _configuration(model: onnx.ModelProto) -> None:
    model.configuration.add(name="two devices", num_devices=2, device=["a", "b"])
    model.graph.node[0].device_configurations.add(configuration_id="two devices", pipeline_stage=1)


def _subgraph(model: onnx.ModelProto) -> None:
    inner = branch(
        helper.make_node("Add", ["x", "k"], ["r"], name="inner"), output="r", initializers=(tensor("k", 4),)
    )
    inner.doc_string = "why"
    _add_metadata(inner)
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


def _of_type(data_type: int) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.initializer.append(helper.make_tensor("n", data_type, [3], [1, 1, 1]))


PROBES: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "producer": lambda m: (setattr(m, "producer_name", "p"), setattr(m, "producer_version", "1")),
    "domain": lambda m: setattr(m, "domain", "d"),
    "model version": lambda m: setattr(m, "model_version", 7),
    "ir version": lambda m: setattr(m, "ir_version", 8),
    "doc string": lambda m: setattr(m, "doc_string", "why"),
    "doc string of graph": lambda m: setattr(m.graph, "doc_string", "why"),
    "doc string of node": lambda m: setattr(m.graph.node[0], "doc_string", "why"),
    "doc string of input": lambda m: setattr(m.graph.input[0], "doc_string", "why"),
    "doc string of output": lambda m: setattr(m.graph.output[0], "doc_string", "why"),
    "doc string of tensor": lambda m: setattr(m.graph.initializer[0], "doc_string", "why"),
    "metadata": _add_metadata,
    "metadata of graph": lambda m: _add_metadata(m.graph),
    "metadata of node": lambda m: _add_metadata(m.graph.node[0]),
    "metadata of input": lambda m: _add_metadata(m.graph.input[0]),
    "metadata of output": lambda m: _add_metadata(m.graph.output[0]),
    "metadata of tensor": lambda m: _add_metadata(m.graph.initializer[0]),
    "denotation of type": lambda m: setattr(m.graph.input[0].type, "denotation", "TENSOR"),
    "denotation of dimension": lambda m: setattr(
        m.graph.input[0].type.tensor_type.shape.dim[0], "denotation", "BATCH"
    ),
    "unknown dimension": lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].Clear(),
    "no shape": lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"),
    "no type": lambda m: m.graph.output[0].ClearField("type"),
    "types inside": lambda m: m.graph.value_info.append(value("xw", "N", 300)),
    "annotation of input": _annotate("x"),
    "annotation of output": _annotate("y"),
    "annotation of initializer": _annotate("w"),
    "initializer as input": lambda m: m.graph.input.append(value("w", 4, 300)),
    "initializer as output": lambda m: m.graph.output.append(value("w", 4, 300)),
    "input as output": lambda m: m.graph.output.append(value("x", "N", 4)),
    "an output twice": lambda m: m.graph.output.append(value("y", "N", 300)),
    "optional inputs": lambda m: m.graph.node.append(helper.make_node("Clip", ["y", "", "b"], ["z"])),
    "optional inputs at the end": lambda m: m.graph.node.append(
        helper.make_node("Clip", ["y", "", ""], ["z"])
    ),
    "optional outputs": lambda m: m.graph.node.append(helper.make_node("Dropout", ["y"], ["z", ""])),
    "overload": lambda m: setattr(m.graph.node[0], "overload", "o"),
    "attributes": _every_attribute,
    "function": _function,
    "configuration": _configuration,
    "subgraph": _subgraph,
    "strings": lambda m: m.graph.initializer.append(helper.make_tensor("n", 8, [2], [b"a", b"\xff"])),
    "no numbers": lambda m: m.graph.initializer.append(helper.make_tensor("n", 1, [0, 3], [])),
    "scalar": lambda m: m.graph.initializer.append(helper.make_tensor("n", 1, [], [1.0])),
} | {
    f"tensor of {TensorProto.DataType.Name(number)}": _of_type(number)
    for number in TensorProto.DataType.values()
    if number not in (TensorProto.UNDEFINED, TensorProto.STRING)
}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("name", PROBES)
def test_a_field_comes_back(name, external, tmp_path):
    proto = linear_proto()
    PROBES[name](proto)
    save(from_proto(proto), tmp_path / "model.onnx", external=external)
    loaded = load(tmp_path / "model.onnx")
    again = onnx.ModelProto.FromString(to_bytes(loaded))
    assert canonical(again) == canonical(proto)


def test_a_default_operator_set_by_its_long_name():
    proto = linear_proto()
    proto.opset_import[0].domain = "ai.onnx"
    proto.graph.node[0].domain = "ai.onnx"
    model = from_proto(proto)
    assert model.opset_imports[""] == 21
    assert {node.domain for node in model.graph} == {""}


def test_the_message_given_is_not_touched_and_not_shared():
    proto = linear_proto()
    before = proto.SerializeToString(deterministic=True)
    model = from_proto(proto)
    model.graph.initializers["w"].name = "renamed"
    assert proto.SerializeToString(deterministic=True) == before
    written = to_bytes(model)
    proto.graph.initializer[0].raw_data = bytes(4800)
    assert to_bytes(model) == written

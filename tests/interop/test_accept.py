"""Whatever holds a model is let in; whatever does not is told what would be."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxq.errors import NotAModel, UnsupportedModel, UsageProblem
from onnxq.interop import as_model, to_graphsurgeon

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }'


def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


class ONNXProgram:
    """The shape of torch's class."""

    def __init__(self, model: object) -> None:
        self.model = model


def test_a_path_is_read(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(proto().SerializeToString())
    for name in (path, str(path)):
        assert as_model(name).graph[0].op_type == "Relu"


def test_a_proto_is_taken_and_not_shared():
    given = proto()
    model = as_model(given)
    given.graph.node[0].op_type = "Tanh"
    assert model.graph[0].op_type == "Relu"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_parsed(kind):
    assert as_model(kind(proto().SerializeToString())).graph[0].op_type == "Relu"


def test_an_ir_model_is_itself_also_inside_a_torch_program():
    model = ir.from_proto(proto())
    assert as_model(model) is model
    assert as_model(ONNXProgram(model)) is model


def test_a_graphsurgeon_graph_is_exported():
    graph = to_graphsurgeon(ir.from_proto(proto()))
    graph.nodes[0].op = "Tanh"
    assert as_model(graph).graph[0].op_type == "Tanh"


def test_an_old_torch_program_is_refused_with_a_way_out():
    with pytest.raises(UnsupportedModel, match="not an onnx-ir model") as caught:
        as_model(ONNXProgram(proto()))
    assert "torch" in caught.value.hint


def test_damaged_bytes_are_no_model():
    with pytest.raises(NotAModel):
        as_model(b"\xff\xff\xff")


@pytest.mark.parametrize("thing", [None, 3, np.zeros(2), [proto()], {"model": 1}])
def test_anything_else_is_refused_by_its_type(thing):
    with pytest.raises(UsageProblem, match=type(thing).__name__) as caught:
        as_model(thing)
    assert "ModelProto" in caught.value.hint

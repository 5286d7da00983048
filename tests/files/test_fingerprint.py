import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnxq.files import fingerprint, from_proto
from tests.files.models import OPSETS, linear_proto, tensor


def _print_of(edit):
    proto = linear_proto()
    edit(proto)
    return fingerprint(from_proto(proto))


def _typed(proto):
    array = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("w", 1, array.shape, array.ravel().tolist()))


def _swap_initializers(proto):
    proto.graph.initializer.extend(list(proto.graph.initializer)[::-1])
    del proto.graph.initializer[:2]


SAME = {
    "documentation": lambda m: setattr(m, "doc_string", "x"),
    "producer": lambda m: setattr(m, "producer_name", "x"),
    "metadata": lambda m: m.metadata_props.add(key="k", value="v"),
    "node name": lambda m: setattr(m.graph.node[0], "name", "x"),
    "graph name": lambda m: setattr(m.graph, "name", "x"),
    "inferred shape": lambda m: m.graph.value_info.append(
        helper.make_tensor_value_info("xw", 1, [None, 300])
    ),
    "storage": _typed,
    "order of initializers": _swap_initializers,
    "unused output": lambda m: m.graph.node[0].output.append(""),
}

DIFFERENT = {
    "weight": lambda m: m.graph.initializer[0].CopyFrom(tensor("w", 4, 300, seed=9)),
    "shape of a weight": lambda m: m.graph.initializer[1].dims.insert(0, 1),
    "operator": lambda m: setattr(m.graph.node[1], "op_type", "Sub"),
    "wiring": lambda m: m.graph.node[1].input.extend(["x"]),
    "attribute": lambda m: m.graph.node[0].attribute.append(helper.make_attribute("a", 1)),
    "float attribute": lambda m: m.graph.node[0].attribute.append(helper.make_attribute("a", 1.0)),
    "output name": lambda m: (
        m.graph.node[1].output.__setitem__(0, "z"),
        setattr(m.graph.output[0], "name", "z"),
    ),
    "input shape": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 3),
    "operator set": lambda m: setattr(m.opset_import[0], "version", 20),
    "function": lambda m: m.functions.append(
        helper.make_function(
            "custom", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], list(OPSETS)
        )
    ),
    "subgraph": lambda m: m.graph.node[0].attribute.append(helper.make_attribute("g", linear_proto(2).graph)),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_count(name):
    assert _print_of(SAME[name]) == _print_of(lambda m: None)


def test_all_that_counts_is_told_apart():
    prints = {name: _print_of(edit) for name, edit in DIFFERENT.items()} | {"": _print_of(lambda m: None)}
    assert len(set(prints.values())) == len(prints)


def test_a_number_that_a_file_rounds_counts_as_rounded():
    """A double written into an attribute in memory has the fingerprint it will have after saving."""
    model = from_proto(linear_proto())
    node = next(iter(model.graph))
    node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.1)
    before = fingerprint(model)
    node.attributes["alpha"] = ir.AttrFloat32("alpha", float(np.float32(0.1)))
    assert fingerprint(model) == before


def test_it_is_the_same_next_year():
    """Saved statistics are found by it: a change of this value makes every cache of every user stale."""
    proto = linear_proto(columns=2)
    for index, initializer in enumerate(proto.graph.initializer):
        initializer.raw_data = (
            bytes(range(len(initializer.raw_data))) if index else bytes(len(initializer.raw_data))
        )
    assert (
        fingerprint(from_proto(proto)) == "fb5ddd363f58c637ffefebb3f2b11ac03816ebaf4187e9b7d27ea2a51f6a9c07"
    )

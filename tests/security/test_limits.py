"""Models that are small on disk and would be large, deep or endless in memory."""

from dataclasses import fields

import onnx
import pytest
from onnx import TensorProto, helper

from onnxq.errors import InvalidModel, LimitExceeded, NotAModel, UnsafeModel
from onnxq.files import Limits, from_proto, load
from tests.files.models import OPSETS, branch, linear_proto, model_of, tensor, value


def nested(depth: int) -> onnx.ModelProto:
    """If inside If."""
    inner = branch(helper.make_node("Relu", ["x"], ["r0"]), output="r0")
    other = onnx.GraphProto()
    other.CopyFrom(inner)
    for level in range(1, depth):
        node = helper.make_node("If", ["c"], [f"r{level}"], then_branch=inner, else_branch=other)
        inner = branch(node, output=f"r{level}")
    inner.input.extend([value("x", 4), helper.make_tensor_value_info("c", TensorProto.BOOL, [])])
    return model_of(inner)


def calling(calls: dict[str, list[str]]) -> onnx.ModelProto:
    """Functions by name, each a chain of calls; the graph calls the first."""
    functions = []
    for name, callees in calls.items():
        steps = [f"v{index}" for index in range(len(callees) + 1)]
        nodes = [
            helper.make_node(callee, [steps[index]], [steps[index + 1]], domain="custom")
            for index, callee in enumerate(callees)
        ]
        functions.append(helper.make_function("custom", name, ["v0"], [steps[-1]], nodes, list(OPSETS)))
    node = helper.make_node(next(iter(calls)), ["x"], ["y"], domain="custom")
    return model_of(helper.make_graph([node], "g", [value("x", 4)], [value("y", 4)]), tuple(functions))


def doubling(levels: int) -> onnx.ModelProto:
    """Each function calls the next one twice."""
    return calling({f"F{level}": [f"F{level + 1}"] * 2 for level in range(levels)})


def with_dims(*dims: int) -> onnx.ModelProto:
    proto = linear_proto()
    proto.graph.initializer.add(name="bomb", data_type=TensorProto.FLOAT, dims=dims)
    return proto


BOMBS = {
    "nesting": (lambda: nested(20), Limits(max_nesting=10), LimitExceeded, "max-nesting"),
    "nodes": (linear_proto, Limits(max_nodes=1), LimitExceeded, "max-nodes"),
    "two calls each": (lambda: doubling(60), Limits(), LimitExceeded, "max-nodes"),
    "chain of calls": (
        lambda: calling({f"F{i}": [f"F{i + 1}"] for i in range(5000)}),
        Limits(),
        LimitExceeded,
        "max-call-depth",
    ),
    "calls itself": (lambda: calling({"F": ["F"]}), Limits(), UnsafeModel, "function-cycle"),
    "calls in a circle": (lambda: calling({"F": ["G"], "G": ["F"]}), Limits(), UnsafeModel, "function-cycle"),
    "dims without data": (lambda: with_dims(2**16, 2**16), Limits(), InvalidModel, "data-size"),
    "huge dims": (lambda: with_dims(2**40, 2**20), Limits(), LimitExceeded, "max-tensor-bytes"),
    "overflowing dims": (lambda: with_dims(2**62, 2**62), Limits(), LimitExceeded, "max-tensor-bytes"),
    "negative dims": (lambda: with_dims(-1, -1), Limits(), InvalidModel, "negative-dims"),
    "many dims": (lambda: with_dims(*[1] * 100_000), Limits(), LimitExceeded, "max-rank"),
    "many tensors": (linear_proto, Limits(max_total_bytes=5000), LimitExceeded, "max-total-bytes"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(name):
    build, limits, error, slug = BOMBS[name]
    proto = build()
    with pytest.raises(error) as caught:
        from_proto(proto, limits=limits)
    assert caught.value.slug == slug


def test_a_file_over_the_limit_is_not_read(tmp_path):
    (tmp_path / "m.onnx").write_bytes(linear_proto().SerializeToString())
    with pytest.raises(LimitExceeded) as caught:
        load(tmp_path / "m.onnx", limits=Limits(max_file_bytes=100))
    assert caught.value.slug == "max-file-bytes"


def test_nesting_beyond_what_protobuf_reads_is_refused(tmp_path):
    """Written by hand, as the message classes refuse to: graph { node { attribute { g { node { ..."""
    graph = b""
    for _ in range(1000):
        for field in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            graph = bytes([field << 3 | 2]) + _varint(len(graph)) + graph
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a\x3a" + _varint(len(graph)) + graph)
    with pytest.raises(NotAModel) as caught:
        load(tmp_path / "m.onnx")
    assert caught.value.slug == "corrupt"


def _varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def test_an_accepted_model_is_at_its_limits():
    """Every limit lets through what is exactly at it."""
    limits = Limits(max_nodes=2, max_nesting=1, max_rank=2, max_tensor_bytes=4800, max_total_bytes=6000)
    assert from_proto(linear_proto(), limits=limits)
    assert from_proto(nested(10), limits=Limits(max_nesting=10))
    assert from_proto(doubling(5), limits=Limits(max_nodes=2**5, max_call_depth=5))


def test_the_way_out_names_the_limit():
    for field in fields(Limits):
        with pytest.raises(LimitExceeded) as caught:
            Limits().check(field.name, 2**70, "here")
        assert f"{field.name}={2**70}" in caught.value.hint


def test_honest_functions_expand_within_limits():
    proto = calling({"F": ["G", "G"], "G": ["Relu"]})
    proto.graph.initializer.append(tensor("unused", 4))
    assert from_proto(proto).functions

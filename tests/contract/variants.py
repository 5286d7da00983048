"""One graph in other surroundings: inside a branch, inside a function, its constants read by others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx import GraphProto, NodeProto, helper


def as_it_is(model: ir.Model) -> ir.Model:
    return model


def in_a_branch(model: ir.Model) -> ir.Model:
    """Both branches of an If compute the graph; its constants stay outside, shared by the two."""
    proto = ir.to_proto(model)
    graph = proto.graph
    outputs = [value.name for value in graph.output]
    graph.input.append(helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    branches = {
        "then_branch": _branch(graph, lambda name: name),
        "else_branch": _branch(graph, _other(graph)),
    }
    node = helper.make_node("If", ["condition"], [f"outer_{name}" for name in outputs], **branches)
    for value in graph.output:
        value.name = f"outer_{value.name}"
    _keep(graph, [node])
    return ir.from_proto(proto)


def in_a_function(model: ir.Model) -> ir.Model:
    """The graph is the body of a function, its constants nodes there; the main graph calls it."""
    proto = ir.to_proto(model)
    graph = proto.graph
    inputs, outputs = [value.name for value in graph.input], [value.name for value in graph.output]
    constants = [
        helper.make_node("Constant", [], [each.name], value=each)
        for each in graph.initializer
        if each.name not in inputs
    ]
    body = [*constants, *graph.node, *_copies(graph, outputs, lambda name: name)]
    results = [f"{name}_copy" if name in _given(graph) else name for name in outputs]
    imports = list(proto.opset_import)
    proto.functions.append(helper.make_function("around", "body", inputs, results, body, imports))
    proto.opset_import.append(helper.make_opsetid("around", 1))
    del graph.initializer[:]
    graph.initializer.extend(each for each in ir.to_proto(model).graph.initializer if each.name in inputs)
    _keep(graph, [helper.make_node("body", inputs, outputs, domain="around")])
    return ir.from_proto(proto)


def with_other_readers(model: ir.Model) -> ir.Model:
    """Every constant is an output of its own as well."""
    proto = ir.to_proto(model)
    for index, tensor in enumerate(proto.graph.initializer):
        proto.graph.node.append(helper.make_node("Identity", [tensor.name], [f"reader_{index}"]))
        proto.graph.output.append(
            helper.make_tensor_value_info(f"reader_{index}", tensor.data_type, tensor.dims)
        )
    return ir.from_proto(proto)


def with_overridable_constants(model: ir.Model) -> ir.Model:
    """Every constant is the default of an input, so that none of them is certain."""
    proto = ir.to_proto(model)
    inputs = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.name not in inputs:
            proto.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return ir.from_proto(proto)


VARIANTS: Mapping[str, Callable[[ir.Model], ir.Model]] = {
    "as it is": as_it_is,
    "in a branch": in_a_branch,
    "in a function": in_a_function,
    "with other readers": with_other_readers,
    "with overridable constants": with_overridable_constants,
}


def _branch(graph: GraphProto, renamed: Callable[[str], str]) -> GraphProto:
    outputs = [value.name for value in graph.output]
    given = _given(graph)
    nodes = [_renamed(node, renamed) for node in graph.node]
    nodes += _copies(graph, outputs, renamed)
    branch = helper.make_graph(nodes, renamed("branch"), [], [])
    for value in graph.output:
        copy = branch.output.add()
        copy.CopyFrom(value)
        copy.name = renamed(f"{value.name}_copy" if value.name in given else value.name)
    for value in graph.value_info:
        copy = branch.value_info.add()
        copy.CopyFrom(value)
        copy.name = renamed(value.name)
    return branch


def _copies(graph: GraphProto, outputs: list[str], renamed: Callable[[str], str]) -> list[NodeProto]:
    """Identities for outputs that are inputs or constants, which an inner graph cannot hand out itself."""
    given = _given(graph)
    return [
        helper.make_node("Identity", [name], [renamed(f"{name}_copy")]) for name in outputs if name in given
    ]


def _given(graph: GraphProto) -> set[str]:
    return {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}


def _other(graph: GraphProto) -> Callable[[str], str]:
    """Names for a second copy of the graph: what it computes is renamed, what it is given is not."""
    given = _given(graph)
    return lambda name: name if not name or name in given else f"other_{name}"


def _renamed(node: NodeProto, renamed: Callable[[str], str]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    for part in _parts(copy):
        part.input[:] = [renamed(name) for name in part.input]
        part.output[:] = [renamed(name) for name in part.output]
    for graph in _graphs(copy):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = renamed(value.name)
    return copy


def _parts(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for graph in _graphs(node):
        for inner in graph.node:
            yield from _parts(inner) if not inner.attribute else (inner,)


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            if attribute.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                continue
            yield graph
            for inner in graph.node:
                yield from _graphs(inner)


def _keep(graph: GraphProto, nodes: list[NodeProto]) -> None:
    del graph.node[:]
    del graph.value_info[:]
    graph.node.extend(nodes)

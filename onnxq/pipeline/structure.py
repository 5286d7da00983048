"""Copies of a model, and what tells two models apart when nobody kept a journal."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.contract import Change
from onnxq.edit import label_of

if TYPE_CHECKING:
    import onnx

# Tensors up to this size stay in a skeleton: shapes and axes matter to the checker, weights do not.
SMALL_TENSOR = 1024
# Up to this much data, copying it is quicker than working around it.
LITTLE_DATA = 1 << 22


@dataclass(frozen=True)
class Structure:
    """A model taken apart: everything but its initializers in a form to compare, those by name, its nodes."""

    facts: tuple[Hashable, ...]
    weights: Mapping[str, ir.TensorProtocol]
    nodes: tuple[tuple[str, str], ...]


def copy_of(model: ir.Model) -> ir.Model:
    """A copy that shares the weights. A model whose nodes are out of order is put in order first."""
    try:
        copied = model.clone()
    except (RuntimeError, ValueError):
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
        copied = model.clone()
    # A clone shares its type objects with the original, and setting an element type writes to them.
    for value in _values_of(copied):
        value.type = copy.deepcopy(value.type)
    return copied


def _values_of(model: ir.Model) -> Iterator[ir.Value]:
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for root in roots:
        for graph in (root.graph if isinstance(root, ir.Function) else root, *root.subgraphs()):
            yield from graph.inputs
            yield from graph.initializers.values()
        for node in root.all_nodes():
            yield from node.outputs


def skeleton_of(model: ir.Model) -> onnx.ModelProto:
    """The model in protobuf form, larger initializers of its main graph turned into inputs without data."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= LITTLE_DATA:
        return ir.to_proto(model)
    bare = copy_of(model)
    for name, value in list(bare.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= SMALL_TENSOR:
            continue
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value.const_value = None
        del bare.graph.initializers[name]
        if not value.is_graph_input():
            bare.graph.inputs.append(value)
    return ir.to_proto(bare)


def structure_of(model: ir.Model) -> Structure:
    """Everything about `model` that can be compared."""
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    weights = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    nodes = tuple((label_of(node), node.op_type) for root in roots for node in root.all_nodes())
    header = (model.ir_version, _pairs(model.opset_imports), _pairs(model.metadata_props), model.doc_string)
    bodies = tuple(_of_function(function) for function in model.functions.values())
    return Structure((header, _of_graph(model.graph, data=False), bodies), weights, nodes)


def _of_function(function: ir.Function) -> Hashable:
    attributes = tuple(_of_attribute(each) for each in function.attributes.values())
    imports = _pairs(function.opset_imports)
    return (function.identifier(), imports, attributes, _of_graph(function.graph, data=True))


def _of_graph(graph: ir.Graph, *, data: bool) -> Hashable:
    """Facts of a graph; the numbers in its initializers among them if `data`."""
    initializers = tuple(
        (_of_value(value), _data(value.const_value) if data and value.const_value is not None else None)
        for value in graph.initializers.values()
    )
    ports = tuple(tuple(_of_value(value) for value in side) for side in (graph.inputs, graph.outputs))
    return (graph.name, ports, initializers, tuple(_of_node(node) for node in graph))


def _of_node(node: ir.Node) -> Hashable:
    return (
        (node.domain, node.op_type, node.overload, node.name),
        tuple(value.name if value is not None else None for value in node.inputs),
        tuple(_of_value(value) for value in node.outputs),
        tuple(sorted((_of_attribute(each) for each in node.attributes.values()), key=lambda fact: fact[0])),
        _pairs(node.metadata_props),
    )


def _of_value(value: ir.Value) -> Hashable:
    return (value.name, str(value.type), str(value.shape), _pairs(value.metadata_props))


def _of_attribute(attribute: ir.Attr) -> tuple[str, Hashable]:
    return attribute.name, (attribute.ref_attr_name, attribute.type, tuple(_facts(attribute)))


def _facts(attribute: ir.Attr) -> Iterator[Hashable]:
    kinds = ir.AttributeType
    if attribute.is_ref():
        return
    if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
        graphs = (attribute.as_graph(),) if attribute.type == kinds.GRAPH else attribute.as_graphs()
        yield from (_of_graph(graph, data=True) for graph in graphs)
    elif attribute.type in (kinds.TENSOR, kinds.TENSORS):
        tensors = (attribute.as_tensor(),) if attribute.type == kinds.TENSOR else attribute.as_tensors()
        yield from ((tensor.dtype, tuple(tensor.shape), _data(tensor)) for tensor in tensors)
    else:
        yield str(attribute.value)


def _data(tensor: ir.TensorProtocol) -> Hashable:
    """The numbers of a tensor, or its strings."""
    return tuple(tensor.numpy().flat) if tensor.dtype == ir.DataType.STRING else tensor.tobytes()


def _pairs(mapping: Mapping[str, Hashable]) -> Hashable:
    return tuple(sorted(mapping.items()))


def differences(before: Structure, after: Structure, owner: str) -> tuple[Change, ...]:
    """A journal made afterwards: nodes that went and came, weights that changed, or merely something."""
    went, came = Counter(before.nodes) - Counter(after.nodes), Counter(after.nodes) - Counter(before.nodes)
    changes = [Change(owner, "remove", name, op_type) for name, op_type in went.elements()]
    changes += [Change(owner, "insert", name, op_type) for name, op_type in came.elements()]
    for name in sorted(before.weights.keys() & after.weights.keys()):
        if not _same(before.weights[name], after.weights[name]):
            changes.append(Change(owner, "constant", "", name))
    if not changes and before.facts != after.facts:
        changes.append(Change(owner, "transform", "", "wiring, attributes, types or names"))
    return tuple(changes)


def _same(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one is other:
        return True
    return one.dtype == other.dtype and one.shape == other.shape and _data(one) == _data(other)

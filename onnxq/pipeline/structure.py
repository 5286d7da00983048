"""Copies of a model, and what tells two models apart when nobody kept a journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from onnxq.contract import Change
from onnxq.edit import label_of

# Tensors up to this size stay in a skeleton: shapes and axes matter to the checker, weights do not.
SMALL_TENSOR = 1024


@dataclass(frozen=True)
class Structure:
    """A model taken apart: its graph as bytes, its larger initializers, its nodes."""

    skeleton: bytes
    weights: Mapping[str, ir.TensorProtocol]
    nodes: tuple[tuple[str, str], ...]


def copy_of(model: ir.Model) -> ir.Model:
    """A copy that shares the weights. A model whose nodes are out of order is put in order first."""
    try:
        return model.clone()
    except (RuntimeError, ValueError):
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
        return model.clone()


def skeleton_of(model: ir.Model) -> onnx.ModelProto:
    """The model in protobuf form, larger initializers of its main graph turned into inputs without data."""
    copy = copy_of(model)
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= SMALL_TENSOR:
            continue
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value.const_value = None
        del copy.graph.initializers[name]
        if not value.is_graph_input():
            copy.graph.inputs.append(value)
    return ir.to_proto(copy)


def structure_of(model: ir.Model) -> Structure:
    """Everything about `model` that can be compared."""
    weights = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    nodes = tuple((label_of(node), node.op_type) for root in roots for node in root.all_nodes())
    return Structure(skeleton_of(model).SerializeToString(deterministic=True), weights, nodes)


def differences(before: Structure, after: Structure, owner: str) -> tuple[Change, ...]:
    """A journal made afterwards: nodes that went and came, weights that changed, or merely something."""
    went, came = Counter(before.nodes) - Counter(after.nodes), Counter(after.nodes) - Counter(before.nodes)
    changes = [Change(owner, "remove", name, op_type) for name, op_type in went.elements()]
    changes += [Change(owner, "insert", name, op_type) for name, op_type in came.elements()]
    for name in sorted(before.weights.keys() & after.weights.keys()):
        if not _same(before.weights[name], after.weights[name]):
            changes.append(Change(owner, "constant", "", name))
    if not changes and before.skeleton != after.skeleton:
        changes.append(Change(owner, "transform", "", "wiring, attributes, types or names"))
    return tuple(changes)


def _same(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one is other:
        return True
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()

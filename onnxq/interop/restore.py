"""Giving a model back what another tool dropped while it rewrote it.

Tools with their own graph classes keep what they know of. Where an object is still there after the rewrite (a
value or function of the same name, a node of the same name or first output), it gets back its metadata, doc
strings, denotations, quantization annotations, unnamed types and shapes, and attributes that the tool cannot
hold. What the tool changed stays changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import onnx_ir as ir

ANNOTATIONS = "quant_parameter_tensor_names"
"""Where onnx-ir keeps the quantization annotation of a value."""


def restore(before: ir.Model, after: ir.Model, droppable: Callable[[ir.Attr], bool]) -> None:
    """Copy onto `after` what objects of `before` had and their successors lack.

    Args:
        before: The model as it was.
        after: The model that the tool gave; changed in place.
        droppable: Whether the tool drops an attribute like this one from every node.
    """
    after.domain = after.domain or before.domain
    after.doc_string = after.doc_string or before.doc_string
    after.producer_name = after.producer_name or before.producer_name
    after.producer_version = after.producer_version or before.producer_version
    if after.model_version is None:
        after.model_version = before.model_version
    _fill(before.metadata_props, after.metadata_props)
    _fill(before.opset_imports, after.opset_imports)
    _restore_graph(before.graph, after.graph, droppable)
    for identifier, function in after.functions.items():
        old = before.functions.get(identifier)
        if old is None:
            continue
        function.doc_string = function.doc_string or old.doc_string
        _fill(old.metadata_props, function.metadata_props)
        _restore_graph(old.graph, function.graph, droppable)


def _restore_graph(old: ir.Graph, new: ir.Graph, droppable: Callable[[ir.Attr], bool]) -> None:
    new.name = new.name or old.name
    new.doc_string = new.doc_string or old.doc_string
    _fill(old.metadata_props, new.metadata_props)
    _lift(old, new)
    values = {value.name: value for value in _values(old) if value.name}
    for value in _values(new):
        if value.name in values:
            _restore_value(values[value.name], value)
    _restore_order(old, new)
    nodes = {_identity(node): node for node in old}
    for node in new:
        if _identity(node) in nodes:
            _restore_node(nodes[_identity(node)], node, droppable)


def _lift(old: ir.Graph, new: ir.Graph) -> None:
    """Take initializers that only subgraphs read, and that moved into each of these, back where they were."""
    parts = list(new.subgraphs())
    for name in old.initializers:
        if name in new.initializers:
            continue
        copies = [part.initializers.pop(name) for part in parts if name in part.initializers]
        for copy in copies[1:]:
            copy.replace_all_uses_with(copies[0])
        if copies:
            new.initializers[name] = copies[0]


def _restore_order(old: ir.Graph, new: ir.Graph) -> None:
    """Initializers in the order they had, new ones behind them: the same model gives the same bytes."""
    values = dict(new.initializers)
    ordered = [name for name in old.initializers if name in values]
    ordered += [name for name in values if name not in old.initializers]
    if ordered == list(values):
        return
    for name in values:
        del new.initializers[name]
    for name in ordered:
        new.initializers[name] = values[name]


def _restore_value(old: ir.Value, new: ir.Value) -> None:
    new.doc_string = new.doc_string or old.doc_string
    _fill(old.metadata_props, new.metadata_props)
    if ANNOTATIONS in old.meta and ANNOTATIONS not in new.meta:
        new.meta[ANNOTATIONS] = old.meta[ANNOTATIONS]
    if new.type is None or new.type == old.type or _is_bare_copy(old, new):
        new.type = old.type
    if new.shape is None or new.shape == old.shape:
        new.shape = old.shape.copy() if old.shape is not None else None
    one, other = old.const_value, new.const_value
    if one is not None and other is not None and _same(one, other):
        new.const_value = one


def _restore_node(old: ir.Node, new: ir.Node, droppable: Callable[[ir.Attr], bool]) -> None:
    new.doc_string = new.doc_string or old.doc_string
    _fill(old.metadata_props, new.metadata_props)
    if old.op_type != new.op_type:
        return
    left = dict(new.attributes)
    new.attributes.clear()
    for name, attribute in old.attributes.items():
        kept = left.pop(name, None)
        if kept is None:
            if droppable(attribute):
                new.attributes[name] = attribute
            continue
        new.attributes[name] = kept
        kept.doc_string = kept.doc_string or attribute.doc_string
        if kept.type == attribute.type == ir.AttributeType.GRAPH and not kept.is_ref():
            _restore_graph(attribute.as_graph(), kept.as_graph(), droppable)
    new.attributes.update(left)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _identity(node: ir.Node) -> tuple[str, str]:
    """The name of a node; without one, that of its first output."""
    if node.name:
        return "node", node.name
    return "output", next((str(value.name) for value in node.outputs if value.name), "")


def _is_bare_copy(old: ir.Value, new: ir.Value) -> bool:
    """Whether the types differ in a denotation alone."""
    return type(old.type) is type(new.type) and old.dtype == new.dtype and old.dtype is not None


def _same(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _fill(source: Mapping[str, Any], target: MutableMapping[str, Any]) -> None:
    for key, value in source.items():
        target.setdefault(key, value)

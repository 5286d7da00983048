"""A name for what a model computes, by which saved statistics and caches know it again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.files.tensors import bytes_of

Plain = tuple[Any, ...]


def fingerprint(model: ir.Model) -> str:
    """SHA-256, in hex, of a model's graphs and weights.

    Counted: operators, attributes, the names and wiring of values, types and shapes of inputs, weights,
    functions, operator sets. Not counted: where weights are stored, documentation, metadata, names of
    nodes, inferred shapes, the order of initializers and attributes. `load(save(model))` has the
    fingerprint of `model`.
    """
    digest = hashlib.sha256()
    for part in _parts(model):
        digest.update(repr(part).encode())
    return digest.hexdigest()


def _parts(model: ir.Model) -> Iterator[Plain]:
    """The model as plain tuples of numbers and strings, whose `repr` is the same on every machine."""
    yield ("opsets", *sorted(model.opset_imports.items()))
    yield from _graph(model.graph)
    for key in sorted(model.functions):
        function = model.functions[key]
        yield ("function", *key, *sorted(function.opset_imports.items()))
        yield ("parameters", *(_attribute(item) for item in _sorted(function.attributes)))
        yield ("inputs", *_names(function.inputs))
        yield ("outputs", *_names(function.outputs))
        yield from (_node(node) for node in function)


def _graph(graph: ir.Graph) -> Iterator[Plain]:
    yield ("inputs", *((value.name, _type(value.type), _shape(value.shape)) for value in graph.inputs))
    yield ("outputs", *_names(graph.outputs))
    for name in sorted(graph.initializers):
        tensor = graph.initializers[name].const_value
        yield ("initializer", name, _tensor(tensor) if tensor is not None else None)
    yield from (_node(node) for node in graph)


def _node(node: ir.Node) -> Plain:
    outputs = _names(node.outputs)
    while outputs and not outputs[-1]:  # a file does not keep unused outputs at the end
        outputs.pop()
    attributes = [_attribute(item) for item in _sorted(node.attributes)]
    return ("node", node.domain, node.op_type, node.overload, _names(node.inputs), outputs, attributes)


def _sorted(attributes: Mapping[str, ir.Attr]) -> list[ir.Attr]:
    return [attributes[name] for name in sorted(attributes)]


def _attribute(attribute: ir.Attr) -> Plain:
    if attribute.is_ref():
        return (attribute.name, attribute.type.name, "ref", attribute.ref_attr_name)
    if attribute.type == ir.AttributeType.UNDEFINED:
        return (attribute.name,)
    return (attribute.name, attribute.type.name, _value(attribute.value))


def _value(value: Any) -> Any:
    """An attribute's value as plain data."""
    if isinstance(value, (str, bytes)):
        return value
    if isinstance(value, (bool, int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(np.float32(value))  # all that a file keeps
    if isinstance(value, ir.Graph):
        return tuple(_graph(value))
    if isinstance(value, ir.TensorProtocol):
        return _tensor(value)
    if isinstance(value, ir.TypeAndShape):
        return (_type(value.type), _shape(value.shape))
    return tuple(_value(item) for item in value)


def _tensor(tensor: ir.TensorProtocol) -> Plain:
    if tensor.dtype == ir.DataType.STRING:
        content = hashlib.sha256(repr([bytes(text) for text in np.ravel(tensor.numpy())]).encode())
    else:
        content = hashlib.sha256(bytes_of(tensor))
    return (tensor.dtype.name, _shape(tensor.shape), content.hexdigest())


def _type(value_type: ir.TypeProtocol | ir.DataType | None) -> Any:
    """A type as nested names, element types innermost."""
    if value_type is None or isinstance(value_type, ir.DataType):
        return value_type.name if value_type is not None else None
    return (type(value_type).__name__, _type(value_type.elem_type))


def _shape(shape: ir.ShapeProtocol | None) -> Any:
    if shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in shape)


def _names(values: Sequence[ir.Value | None]) -> list[str]:
    return [(value.name or "") if value is not None else "" for value in values]

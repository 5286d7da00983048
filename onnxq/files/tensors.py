"""Tensors of a model in memory: where they are kept, and what bytes they stand for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from onnxq.errors import InvalidModel

Keep = Callable[[ir.TensorProtocol], None]
AnyTensor = TypeVar("AnyTensor", bound=ir.TensorProtocol)
Attributes = MutableMapping[str, ir.Attr]


@dataclass(frozen=True)
class Site:
    """One place of a model that keeps a tensor.

    Attributes:
        where: The place, in words.
        tensor: What it keeps.
        keep: Puts another tensor there.
        movable: Whether every runtime can read the tensor from another file: initializers and Constant nodes.
    """

    where: str
    tensor: ir.TensorProtocol
    keep: Keep
    movable: bool


def sites(model: ir.Model) -> Iterator[Site]:
    """All places that keep tensors, subgraphs and functions included: initializers, then attributes."""
    of_functions = (graph for function in model.functions.values() for graph in function.subgraphs())
    for graph in (*model.graphs(), *of_functions):
        yield from _of_initializers(graph)
    roots: tuple[ir.Graph | ir.Function, ...] = (model.graph, *model.functions.values())
    for root in roots:
        for node in root.all_nodes():
            where = f"node {node.name or node.op_type!r}"
            yield from _of_attributes(node.attributes, where, node.op_type == "Constant" and not node.domain)
    for function in model.functions.values():
        yield from _of_attributes(function.attributes, f"function {function.name!r}", movable=False)


def _of_initializers(graph: ir.Graph) -> Iterator[Site]:
    for value in graph.initializers.values():
        if value.const_value is None:
            raise InvalidModel(f"initializer {value.name!r} has no data", slug="no-data")

        def keep(tensor: ir.TensorProtocol, value: ir.Value = value) -> None:
            value.const_value = tensor

        yield Site(f"initializer {value.name!r}", value.const_value, keep, movable=True)


def _of_attributes(attributes: Attributes, owner: str, movable: bool) -> Iterator[Site]:
    """Tensors among the attributes of a node, or among the defaults of a function."""
    for attribute in list(attributes.values()):
        where = f"{owner}: attribute {attribute.name!r}"
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR:

            def keep(tensor: ir.TensorProtocol, old: ir.Attr = attribute) -> None:
                attributes[old.name] = ir.AttrTensor(old.name, tensor, doc_string=old.doc_string)

            yield Site(where, attribute.as_tensor(), keep, movable)
        elif attribute.type == ir.AttributeType.TENSORS:
            yield from _of_list(attributes, attribute, where)


def _of_list(attributes: Attributes, old: ir.Attr, where: str) -> Iterator[Site]:
    tensors = list(old.as_tensors())
    for index, tensor in enumerate(old.as_tensors()):

        def keep(tensor: ir.TensorProtocol, index: int = index) -> None:
            tensors[index] = tensor
            attributes[old.name] = ir.AttrTensors(old.name, tuple(tensors), doc_string=old.doc_string)

        yield Site(where, tensor, keep, movable=False)


@contextmanager
def stand_ins(model: ir.Model, replace: Callable[[Site], ir.TensorProtocol | None]) -> Iterator[None]:
    """Let other tensors stand in for those of `model` for a while; None lets a tensor stay."""
    undo: list[tuple[Keep, ir.TensorProtocol]] = []
    try:
        for site in list(sites(model)):
            if (tensor := replace(site)) is not None:
                undo.append((site.keep, site.tensor))
                site.keep(tensor)
        yield
    finally:
        for keep, tensor in undo:
            keep(tensor)


def with_labels_of(old: ir.TensorProtocol, new: AnyTensor) -> AnyTensor:
    """`new`, documented as `old` is."""
    new.doc_string = old.doc_string
    new.metadata_props.update(old.metadata_props)
    return new


def bytes_of(tensor: ir.TensorProtocol) -> memoryview:
    """The bytes of a numeric tensor as ONNX stores them; no copy is made where memory has them so already."""
    if isinstance(tensor, ir.Tensor) and isinstance(tensor.raw, np.ndarray) and tensor.dtype.bitwidth >= 8:
        array = tensor.raw
        if array.flags.c_contiguous and array.dtype.isnative and sys.byteorder == "little":
            return array.reshape(-1).view(np.uint8).data
    return memoryview(tensor.tobytes())

"""Putting the channels of a whole stream in another order, with nothing left that could tell.

Constants get their rows and columns in the new order; what enters a graph is gathered into it and what leaves
a graph is gathered back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.stream import ChannelStream
from onnxq.ir.walk import constant_of, is_op, root_of

PERMUTED = "_permuted"
"""End of the name of a tensor whose channels were put in another order: statistics do not fit it."""

_Key = tuple[ir.Value, tuple[int, ...], object]


def permute_stream(stream: ChannelStream, edit: Edit, order: Sequence[int]) -> None:
    """Give every tensor of `stream` the channels ``order``; outputs of graphs keep the old order.

    Tensors are renamed, for names key statistics. Constants that others read too are left to them; one that
    several places of the stream read in the same way, such as a tied embedding, stays one.

    Args:
        stream: What `find_stream` found; out of date afterwards.
        edit: The edit that records the change.
        order: The old place of each new channel, a permutation of ``range(channels)``.
    """
    forth = np.asarray(order, np.int64)
    back = np.argsort(forth)
    shared: dict[_Key, ir.Value] = {}
    for (node, index), axes in stream.constants.items():
        _permute_constant(edit, node, index, axes, forth, shared)
    entries, exits = stream.entries, stream.exits
    leaving = dict.fromkeys(producer for value in exits if (producer := value.producer()) is not None)
    for value, _ in tuple(stream.axes.items()):
        if value not in entries and value.producer() not in leaving:
            edit.rename(value, f"{value.name}{PERMUTED}")
    for value in entries:
        _enter(edit, value, stream.axes[value], forth)
    for node in leaving:
        _leave(edit, node, stream.axes, back)


def _permute_constant(
    edit: Edit,
    node: ir.Node,
    index: int,
    axes: tuple[int, ...],
    order: np.ndarray,
    shared: dict[_Key, ir.Value],
) -> None:
    """Let `node` read its constant with each of `axes` in the new order."""
    old = node.inputs[index]
    root, chain, moved = _to_root(old, axes)
    if old is None or root is None:
        raise LookupError(f"the constant of {node.name!r} was changed since it was found")
    key = (root, moved, node.graph)
    value = shared.get(key)
    if value is None:
        array = constant_of(root)
        if array is None:
            raise LookupError(f"the constant {root.name!r} was changed since it was found")
        for axis in moved:
            array = np.take(array, order, axis=axis)
        value = edit.constant(array, str(root.name), near=node)
        if not _is_in_function(value):  # a constant inside a function stands in front of one reader
            shared[key] = value
    for link in reversed(chain):
        (value,) = edit.insert(
            link.op_type,
            [value, *link.inputs[1:]],
            dict(link.attributes),
            before=node,
            names=[str(link.outputs[0].name)],
            like=link.outputs[0],
        )
    edit.rewire(node, index, value)
    above = old.producer()
    if above is not None:
        edit.remove_unused(above)


def _is_in_function(value: ir.Value) -> bool:
    return value.producer() is not None


def _to_root(
    value: ir.Value | None, axes: tuple[int, ...]
) -> tuple[ir.Value | None, list[ir.Node], tuple[int, ...]]:
    """The constant whose copy `value` is, the nodes between, uppermost last, and `axes` as it has them.

    Only transpositions and casts are gone through, so that two readers of a tied weight go on sharing it;
    behind anything else the copy itself counts as the constant.
    """
    chain: list[ir.Node] = []
    root, places = value, axes
    while root is not None and is_op(root.producer(), "Transpose", "Cast", "Identity"):
        node = root.producer()
        assert node is not None
        if is_op(node, "Transpose"):
            given = node.attributes.get("perm")
            rank = len(given.as_ints()) if given is not None else max(2, -min(places))
            perm = tuple(given.as_ints()) if given is not None else tuple(range(rank))[::-1]
            places = tuple(sorted(perm[axis] - rank for axis in places))
        chain.append(node)
        root = node.inputs[0]
    if root is None or root_of(root) is not root:
        return value, [], axes
    return root, chain, places


def _enter(edit: Edit, value: ir.Value, axis: int, order: np.ndarray) -> None:
    """Gather what comes from outside into the new order, for all of its readers."""
    readers = [(node, index) for node, index in value.uses() if not is_op(node, "Shape", "Size")]
    graph = value.graph
    if graph is None or not readers:
        return
    first = next(iter(graph))
    indices = edit.constant(order, f"{value.name}_order", near=first)
    (gathered,) = edit.insert(
        "Gather",
        [value, indices],
        {"axis": axis},
        before=first,
        names=[f"{value.name}{PERMUTED}"],
        like=value,
    )
    for node, index in readers:
        edit.rewire(node, index, gathered)


def _leave(edit: Edit, node: ir.Node, axes: dict[ir.Value, int], back: np.ndarray) -> None:
    """Gather what `node` gives to the outside back into the old order.

    The node is rebuilt in front of itself, where a new node can stand behind it and before all its readers.
    """
    names = [f"{out.name}{PERMUTED}" if out in axes else str(out.name) for out in node.outputs]
    attributes = dict(node.attributes)
    copies = edit.insert(node.op_type, node.inputs, attributes, before=node, names=names, domain=node.domain)
    for old, copy in zip(node.outputs, copies, strict=True):
        copy.type, copy.shape = old.type, old.shape.copy() if old.shape is not None else None
        readers = list(old.uses())
        if not old.is_graph_output() or old not in axes:
            edit.replace(old, copy)
            continue
        indices = edit.constant(back, f"{old.name}_order", near=node)
        (gathered,) = edit.insert(
            "Gather",
            [copy, indices],
            {"axis": axes[old]},
            before=node,
            names=[f"{old.name}_restored"],
            like=old,
        )
        edit.replace(old, gathered)
        for reader, index in readers:
            edit.rewire(reader, index, copy)
    name, properties = node.name, {k: v for k, v in node.metadata_props.items() if k != "onnxq.pass"}
    edit.remove(node)
    rebuilt = copies[0].producer()
    if rebuilt is not None:
        rebuilt.name = name
        rebuilt.metadata_props.update(properties)

"""Who reads a value, seen through operations that leave each channel (the last axis) where it is."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.ir.channels import channels_of, reshape_end
from onnxq.ir.walk import (
    FLOATS,
    attribute,
    axes_of,
    cast_type,
    constant_of,
    input_of,
    is_op,
    last_dim,
    producer,
    rank_of,
    root_of,
)

_PATH_LIMIT = 64
"""Transparent nodes in a row; the next one counts as a reader, or a hostile chain would cost its square."""


@dataclass(frozen=True)
class Use:
    """One reader of a value.

    Attributes:
        node: The node that reads; None where the value leaves its graph: an output of the model, of a
            subgraph or of a function.
        index: Which input of `node`; which graph output if `node` is None.
        value: What is read: the value asked about, or a re-shaped, re-typed or sliced copy of it.
        path: The transparent nodes between the value asked about and `value`, in order.
    """

    node: ir.Node | None
    index: int
    value: ir.Value
    path: tuple[ir.Node, ...] = ()

    @property
    def is_output(self) -> bool:
        """Whether the value leaves its graph here."""
        return self.node is None


def uses_through(value: ir.Value, channels: int | None = None) -> list[Use]:
    """Every use of `value` and of its transparent copies: readers in order, graph outputs included.

    A reader inside an If, Loop or Scan body that captures the value counts like any other; one that reads
    only the shape does not. Transparent are Identity, Dropout at inference, casts between floats, and
    Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Slice, Split and Gather where they provably
    keep the last axis. What cannot be proven is reported as the reader.

    Args:
        value: The value, its channels on the last axis.
        channels: Number of channels where the shape of `value` may not tell.
    """
    found: list[Use] = []
    pending: list[tuple[ir.Value, tuple[ir.Node, ...]]] = [(value, ())]
    size = channels if channels is not None else channels_of(value)
    while pending:
        current, path = pending.pop(0)
        if current.is_graph_output():
            found.append(Use(None, _output_index(current), current, path))
        for node, index in current.uses():
            if index == 0 and len(path) < _PATH_LIMIT and keeps_channels(node, size):
                copies = node.outputs[:1] if node.op_type == "Dropout" else node.outputs
                pending += [(copy, (*path, node)) for copy in copies]
            elif not is_op(node, "Shape", "Size"):
                found.append(Use(node, index, current, path))
    return found


def source_of(value: ir.Value) -> ir.Value:
    """The value that `value` is a transparent copy of: the way back of `uses_through`, short of constants."""
    for _ in range(_PATH_LIMIT):
        node = value.producer()
        before = input_of(node, 0) if node is not None and keeps_channels(node) else None
        if before is None or root_of(before) is not None:  # rows of a table are not the table
            return value
        value = before
    return value


def through_casts(value: ir.Value) -> ir.Value:
    """The value behind Identity and casts between floats."""
    for _ in range(_PATH_LIMIT):
        node = producer(value, "Cast", "Identity")
        before = input_of(node, 0) if node is not None else None
        if node is None or before is None or (node.op_type == "Cast" and not _casts_floats(node)):
            return value
        value = before
    return value


def keeps_channels(node: ir.Node, channels: int | None = None) -> bool:
    """Whether every output of `node` is its input 0 with each channel still at its place on the last axis.

    Args:
        node: Any node.
        channels: Length of the last axis, if the caller knows it.
    """
    if not is_op(node, *_RULES) or not node.inputs or node.inputs[0] is None:
        return False
    size = channels if channels is not None else channels_of(node.inputs[0])
    return _RULES[node.op_type](node, node.inputs[0], size)


def _output_index(value: ir.Value) -> int:
    graph = value.graph
    outputs = list(graph.outputs) if graph is not None else []
    return next((index for index, output in enumerate(outputs) if output is value), 0)


def _always(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    return True


def _casts_floats(node: ir.Node) -> bool:
    target = cast_type(node)
    given = node.inputs[0].dtype if node.inputs[0] is not None else None
    return target in FLOATS and (given is None or given in FLOATS)


def _cast(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    """Everything followed here is a float, so an input of unknown type is one too."""
    return _casts_floats(node)


def _dropout(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    """Opsets from 12 train by an input, 7 to 10 never; earlier ones say by an attribute that they do not."""
    training = input_of(node, 2)
    if training is not None:
        flag = constant_of(training)
        return flag is not None and not flag.any()
    return "is_test" not in node.attributes or attribute(node, "is_test", 0) == 1


def _reshape(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    """Row-major order: an equal last axis means the same channels at the same places."""
    if channels is None:
        return False
    sizes = reshape_end(node)
    if sizes and sizes[-1] == channels:
        return True
    if sizes and sizes[-1] == 0 and len(sizes) == rank_of(data):
        return not attribute(node, "allowzero", 0)
    return last_dim(node.outputs[0]) == channels


def _flatten(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    axis = attribute(node, "axis", 1)
    return axis == -1 or axis + 1 == rank_of(data)


def _unsqueeze(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    axes, rank = axes_of(node), rank_of(data)
    if axes is None:
        return False
    if all(axis < -1 for axis in axes):
        return True
    last = None if rank is None else rank + len(axes) - 1
    return last is not None and all(axis not in (-1, last) for axis in axes)


def _squeeze(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    axes = axes_of(node)
    if axes is None:
        return False
    return _off_last(axes, rank_of(data))


def _off_last(axes: tuple[int, ...], rank: int | None) -> bool:
    """Whether none of `axes` is the last of `rank`."""
    if rank is None:
        return all(axis < -1 for axis in axes)
    return all(axis not in (-1, rank - 1) for axis in axes)


def _transpose(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    perm = node.attributes.get("perm")
    if perm is None or perm.is_ref():
        return False
    order = tuple(perm.as_ints())
    return bool(order) and order[-1] == len(order) - 1


def _slice(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    starts = constant_of(input_of(node, 1))
    axes = axes_of(node, 3)
    if axes is None and input_of(node, 3) is None and starts is not None:
        axes = tuple(range(starts.size))
    return axes is not None and _off_last(axes, rank_of(data))


def _gather(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    return _off_last((attribute(node, "axis", 0),), rank_of(data))


def _expand(node: ir.Node, data: ir.Value, channels: int | None) -> bool:
    """A last axis longer than one cannot be stretched."""
    return channels is not None and channels > 1


_RULES = {
    "Identity": _always,
    "Cast": _cast,
    "Dropout": _dropout,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _gather,
    "Gather": _gather,
    "Expand": _expand,
}

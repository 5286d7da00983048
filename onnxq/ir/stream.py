"""All tensors that must have their channels in one order, and all constants that the order reaches.

From one value outwards: whoever computes it and whoever reads it must agree on the order of its channels, and
so must their other operands, until every way has ended in a constant whose elements can be put in that order,
in a contraction, in a norm's statistics, or at the border of a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.edit import label_of
from onnxq.ir.axes import belonging, size_at
from onnxq.ir.moves import Spot
from onnxq.ir.walk import constant_shape, input_of, is_overridable, root_of

Place = tuple[ir.Node, int]
"""A node and which of its inputs."""


@dataclass(frozen=True, eq=False)
class ChannelStream:
    """Tensors that share one order of their channels, such as the residual stream of a transformer.

    Attributes:
        channels: How many channels.
        axes: The axis of the channels, from the end, of every computed tensor (graph inputs included).
        constants: The axes along which a constant belongs to the channels, by where it is read.
    """

    channels: int
    axes: dict[ir.Value, int] = field(default_factory=dict)
    constants: dict[Place, tuple[int, ...]] = field(default_factory=dict)

    @property
    def entries(self) -> list[ir.Value]:
        """The tensors that come from outside their graph, in the order they were found."""
        return [value for value in self.axes if value.producer() is None]

    @property
    def exits(self) -> list[ir.Value]:
        """The tensors that leave their graph and are computed there."""
        return [value for value in self.axes if value.is_graph_output() and value.producer() is not None]


@dataclass
class _Walk:
    """A stream in the making."""

    stream: ChannelStream
    pending: list[ir.Value] = field(default_factory=list)
    obstacle: Reject | None = None

    def admit(self, node: ir.Node, spot: Spot) -> None:
        """Take in the operand of `node` at `spot`; note an obstacle if it cannot belong to the stream."""
        value = _operand(node, spot)
        if value is None:
            return
        reason = self._computed(value, spot) if root_of(value) is None else self._constant(node, spot, value)
        if reason:
            self.stop(node, reason)

    def stop(self, node: ir.Node, reason: str) -> None:
        """Note why the stream's channels cannot be reordered; the first reason counts."""
        self.obstacle = self.obstacle or Reject(reason, label_of(node))

    def _computed(self, value: ir.Value, spot: Spot) -> str:
        known = self.stream.axes.get(value)
        if known is not None:
            return "" if known == spot.axis else "its channels lie along two axes"
        size = size_at(value, spot.axis)
        if spot.may_stretch and size == 1:
            return ""
        if size is None and spot.may_stretch:
            return f"the shape of {value.name!r} is not known"
        if size not in (None, self.stream.channels):
            return f"{value.name!r} has {size} channels, not {self.stream.channels}"
        self.stream.axes[value] = spot.axis
        self.pending.append(value)
        return ""

    def _constant(self, node: ir.Node, spot: Spot, value: ir.Value) -> str:
        if is_overridable(value):
            return f"{value.name!r} is a graph input too, so a caller may override it"
        shape = constant_shape(value)
        if shape is None or spot.is_output:
            return f"{value.name!r} cannot be read"
        if spot.may_stretch and (len(shape) < -spot.axis or shape[spot.axis] == 1):
            return ""
        if len(shape) < -spot.axis or shape[spot.axis] != self.stream.channels:
            return f"{value.name!r} does not have {self.stream.channels} channels"
        place, known = (node, spot.index), self.stream.constants
        known[place] = tuple(sorted({*known.get(place, ()), spot.axis}))
        return ""


def find_stream(
    value: ir.Value, channels: int, leave: Callable[[ir.Value], bool] | None = None
) -> ChannelStream | Reject | None:
    """Everything that shares the order of the channels on the last axis of `value`.

    Args:
        value: A computed tensor.
        channels: How many channels it has.
        leave: Told each tensor that is found; True ends the search.

    Returns:
        The stream; a `Reject` with the operation that does not let another order pass; None if `leave`
        ended the search, or there are not two channels to reorder.
    """
    if channels < 2:
        return None
    walk = _Walk(ChannelStream(channels, {value: -1}), [value])
    while walk.pending:
        current = walk.pending.pop(0)
        if leave is not None and leave(current):
            return None
        axis, node = walk.stream.axes[current], current.producer()
        if node is not None:
            _carry(walk, node, Spot(True, current.index() or 0, axis))
        for user, index in current.uses():
            _carry(walk, user, Spot(False, index, axis))
    return walk.obstacle or walk.stream


def _carry(walk: _Walk, node: ir.Node, at: Spot) -> None:
    """Take in what belongs to the channels at `at`."""
    spots = belonging(node, at, walk.stream.channels)
    if isinstance(spots, str):
        walk.stop(node, spots)
        return
    for spot in spots:
        walk.admit(node, spot)


def _operand(node: ir.Node, spot: Spot) -> ir.Value | None:
    if spot.is_output:
        return node.outputs[spot.index] if spot.index < len(node.outputs) else None
    return input_of(node, spot.index)

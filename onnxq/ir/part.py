"""Columns of a linear as a Split or Slice cuts them out of one product for several things.

Queries, keys and values are such, or both paths of a gated feed-forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import onnx_ir as ir

from onnxq.ir.linear import Linear, linear_giving
from onnxq.ir.walk import attribute, axes_of, constant_of, input_of, is_op, producer, rank_of

Range = tuple[int, int]
"""First column, and the first behind the last one."""


@dataclass(frozen=True, eq=False)
class Part:
    """Neighbouring columns of a linear.

    Attributes:
        linear: The linear.
        value: Its output, or what is cut out of it.
        start: The first column.
        width: How many columns there are.
    """

    linear: Linear
    value: ir.Value
    start: int
    width: int

    @property
    def columns(self) -> np.ndarray:
        """Where its columns are in the linear, int64 [width]."""
        return self.start + np.arange(self.width)

    @property
    def weight(self) -> np.ndarray:
        """The weight [K, width]."""
        return self.linear.weight[:, self.start : self.start + self.width]

    @property
    def bias(self) -> np.ndarray | None:
        """The bias [width], or None."""
        bias = self.linear.bias
        return None if bias is None else bias[self.start : self.start + self.width]

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the linear's output, nothing being cut."""
        return self.value is self.linear.output

    def is_exclusive(self) -> bool:
        """Whether one node alone reads these columns, and only once."""
        whole = self.linear.output
        if any(value.is_graph_output() for value in (whole, self.value)) or len(self.value.uses()) != 1:
            return False
        if self.is_whole:
            return True
        others = [part for node, index in whole.uses() for part in _cuts(node, index, self.linear)]
        return all(part is not None and (part.value is self.value or self._apart(part)) for part in others)

    def _apart(self, other: Part) -> bool:
        return other.start + other.width <= self.start or self.start + self.width <= other.start


def part_giving(value: ir.Value) -> Part | None:
    """The columns of a linear that `value` is: all of them, or those that a Split or Slice cuts out."""
    linear = linear_giving(value)
    if linear is not None:
        return Part(linear, value, 0, linear.columns)
    node = producer(value, "Split", "Slice")
    source = input_of(node, 0) if node is not None else None
    linear = linear_giving(source) if source is not None else None
    if node is None or linear is None:
        return None
    return next((part for part in _cuts(node, 0, linear) if part is not None and part.value is value), None)


def parts_of(linear: Linear) -> list[Part]:
    """The output of `linear`, and what is cut out of it."""
    cuts = [part for node, index in linear.output.uses() for part in _cuts(node, index, linear)]
    return [Part(linear, linear.output, 0, linear.columns), *(part for part in cuts if part is not None)]


def _cuts(node: ir.Node, index: int, linear: Linear) -> list[Part | None]:
    """What `node`, which reads the output of `linear` by that input, cuts out; None for what is unknown."""
    if is_op(node, "Shape", "Size"):
        return []
    ranges = _ranges(node, linear) if index == 0 else []
    if len(ranges) != len(node.outputs):
        return [None]
    return [
        Part(linear, value, start, stop - start)
        for value, (start, stop) in zip(node.outputs, ranges, strict=True)
    ]


def _ranges(node: ir.Node, linear: Linear) -> list[Range]:
    """The columns that each output of a Split or Slice is; none where they are not known."""
    if is_op(node, "Split"):
        return _split(node, linear) if _is_last(attribute(node, "axis", 0), linear) else []
    return _slice(node, linear) if is_op(node, "Slice") else []


def _split(node: ir.Node, linear: Linear) -> list[Range]:
    given, columns = node.attributes.get("split"), linear.columns
    if given is not None:
        sizes = [] if given.is_ref() else list(given.as_ints())
    elif input_of(node, 1) is not None:
        array = constant_of(input_of(node, 1))
        sizes = [] if array is None else [int(size) for size in array.reshape(-1)]
    else:
        size = -(-columns // len(node.outputs))  # the last one may be smaller
        sizes = [min(size, columns - size * place) for place in range(len(node.outputs))]
    return list(pairwise((0, *accumulate(sizes)))) if sum(sizes) == columns and min(sizes) >= 0 else []


def _slice(node: ir.Node, linear: Linear) -> list[Range]:
    starts, ends, steps = (constant_of(input_of(node, index)) for index in (1, 2, 4))
    axes = axes_of(node, 3)
    if starts is None or ends is None or starts.size != 1 or ends.size != 1 or axes is None or len(axes) != 1:
        return []
    stepped = input_of(node, 4) is not None and (steps is None or (steps != 1).any())
    if stepped or not _is_last(axes[0], linear):
        return []
    start, stop = (_counted(int(array.reshape(())), linear.columns) for array in (starts, ends))
    return [(start, max(start, stop))]


def _counted(place: int, columns: int) -> int:
    """A place that may be counted from the end or lie beyond it."""
    return min(max(place + columns if place < 0 else place, 0), columns)


def _is_last(axis: int, linear: Linear) -> bool:
    rank = rank_of(linear.output) or rank_of(linear.activation)
    return axis == -1 or (rank is not None and axis == rank - 1)

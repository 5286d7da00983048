"""Heads that lie apart, [B, heads, T, D], as an attention operator reads them where more than moves is above.

What splits channels into heads need not be near the product: rotary positions turn each head, a cache joins
it with what came before. Between there and the product only copies for several heads of queries, swapped
axes and constant factors are left, and an operator does all three by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.ir.axes import size_at
from onnxq.ir.repeat import Repeated, find_repeated, find_swapped
from onnxq.ir.walk import constant_shape, last_dim, producer, rank_of, scalar_of

_AXES = 4
_STEP_LIMIT = 6


@dataclass(frozen=True, eq=False)
class ApartHeads:
    """An operand of an attention product, above what an operator does by itself.

    Attributes:
        source: [B, groups, T, D].
        heads: How many heads the product sees.
        groups: How many there are before they are repeated.
        size: Channels of one head.
        scale: The product of the constant factors on the way.
    """

    source: ir.Value
    heads: int
    groups: int
    size: int
    scale: float


def find_apart(operand: ir.Value, *, swapped: bool) -> ApartHeads | None:
    """Where the heads of an operand lie apart.

    Args:
        operand: Four axes.
        swapped: Whether its last two are channels and positions, as keys are in a product.
    """
    value, factor, times, turned = operand, 1.0, 1, False
    for _ in range(_STEP_LIMIT):
        repeated, other, scaled = find_repeated(value), find_swapped(value), scaled_by(value)
        if isinstance(repeated, Repeated):
            value, times = repeated.source, times * repeated.times
        elif other is not None and turned != swapped:
            value, turned = other, not turned
        elif scaled is not None:
            value, factor = scaled[0], factor * scaled[1]
        else:
            break
    groups, size = size_at(value, -3), last_dim(value)
    if turned != swapped or rank_of(value) != _AXES or not isinstance(groups, int) or size is None:
        return None
    return ApartHeads(value, groups * times, groups, size, factor)


def scaled_by(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """What a Mul with one constant multiplies, and the constant."""
    node = producer(value, "Mul")
    if node is None:
        return None
    for index in (0, 1):
        scalar, shape = scalar_of(node.inputs[index]), constant_shape(node.inputs[index])
        other = node.inputs[1 - index]
        if scalar is not None and other is not None and len(shape or ()) <= _AXES:
            return other, scalar[0]
    return None

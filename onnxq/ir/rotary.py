"""Rotary positions, spelled out: pairs of channels turned by an angle that grows with the position.

    y = x · cos + concat(-x[half:], x[:half]) · sin

with the halves of `cos` alike, and those of `sin`: both come from angles [B, S, D/2] joined with themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.edit import label_of
from onnxq.ir.walk import (
    attribute,
    axes_of,
    constant_of,
    input_of,
    is_op,
    last_dim,
    producer,
    rank_of,
    scalar_of,
)

_STEP_LIMIT = 6


@dataclass(frozen=True, eq=False)
class Rotary:
    """Rotary positions of one tensor.

    Attributes:
        input: What is turned, [B, H, S, D].
        output: The result.
        angles: One angle for each position and each pair of channels, [B, S, D/2].
        joined: The node that joins the angles with themselves.
        cosine_factor: A constant factor on the cosines.
        sine_factor: The same on the sines.
    """

    input: ir.Value
    output: ir.Value
    angles: ir.Value
    joined: ir.Node
    cosine_factor: float
    sine_factor: float


@dataclass(frozen=True, eq=False)
class _Wave:
    """Cosines or sines of joined angles, times a factor."""

    joined: ir.Node
    factor: float


def find_rotary(node: ir.Node) -> Rotary | Reject | None:
    """The rotary positions whose last node is the Add `node`.

    Returns:
        What was found; a `Reject` for halves that are turned by angles which are not seen to be alike; None
        for any other node.
    """
    if not is_op(node, "Add"):
        return None
    for index in (0, 1):
        straight, crossed = (producer(node.inputs[i], "Mul") for i in (index, 1 - index))
        if straight is None or crossed is None:
            continue
        for side in (0, 1):
            source = straight.inputs[side]
            for other in (0, 1):
                if source is not None and _turns(crossed.inputs[other], source):
                    return _with_angles(node, source, straight.inputs[1 - side], crossed.inputs[1 - other])
    return None


def _with_angles(
    node: ir.Node, source: ir.Value, cosines: ir.Value | None, sines: ir.Value | None
) -> Rotary | Reject:
    cosine, sine = _wave(cosines, "Cos"), _wave(sines, "Sin")
    if cosine is None or sine is None or cosine.joined is not sine.joined:
        return Reject("its angles are not seen to be alike for both halves", label_of(node))
    angles = cosine.joined.inputs[0]
    assert angles is not None
    return Rotary(source, node.outputs[0], angles, cosine.joined, cosine.factor, sine.factor)


def _turns(value: ir.Value | None, source: ir.Value) -> bool:
    """Whether `value` is the second half of `source`, negated, and the first."""
    join, size = producer(value, "Concat"), last_dim(source)
    if (
        join is None
        or size is None
        or size % 2
        or len(join.inputs) != 2
        or not _is_last(join, rank_of(source))
    ):
        return False
    negated = producer(join.inputs[0], "Neg")
    if negated is None:
        return False
    return _is_half(negated.inputs[0], source, size, 1) and _is_half(join.inputs[1], source, size, 0)


def _is_half(value: ir.Value | None, source: ir.Value, size: int, which: int) -> bool:
    node = producer(value, "Slice", "Split")
    if node is None or value is None or node.inputs[0] is not source:
        return False
    if is_op(node, "Split"):
        halves = len(node.outputs) == 2 and last_dim(value) == size // 2
        return halves and _is_last(node, rank_of(source)) and value.index() == which
    start, end = (constant_of(input_of(node, index)) for index in (1, 2))
    axes, steps = axes_of(node, 3), constant_of(input_of(node, 4))
    if start is None or end is None or start.size != 1 or end.size != 1 or axes is None:
        return False
    last = axes in ((-1,), ((rank_of(source) or 0) - 1,))
    forward = input_of(node, 4) is None or (steps is not None and (steps == 1).all())
    half = size // 2
    begins, stops = int(start.reshape(())), int(end.reshape(()))
    if which == 0:
        return last and forward and begins in (0, -size) and stops in (half, -half)
    return last and forward and begins in (half, -half) and stops >= size


def _wave(value: ir.Value | None, function: str) -> _Wave | None:
    """Past constant factors and an axis put in for heads, up to the function of angles."""
    factor = 1.0
    lifted = 0
    for _ in range(_STEP_LIMIT):
        node = value.producer() if value is not None else None
        if node is None or value is None:
            return None
        if is_op(node, function):
            join = producer(node.inputs[0], "Concat")
            alike = join is not None and len(join.inputs) == 2 and join.inputs[0] is join.inputs[1]
            fits = alike and join is not None and _is_last(join, 3) and lifted == 1
            return _Wave(join, factor) if fits and join is not None else None
        if is_op(node, "Unsqueeze") and axes_of(node) in ((1,), (-3,)):
            lifted += 1
            value = node.inputs[0]
        elif is_op(node, "Mul"):
            scalars = [scalar_of(each) for each in node.inputs]
            side = next((i for i, each in enumerate(scalars) if each is not None), None)
            if side is None:
                return None
            scalar = scalars[side]
            assert scalar is not None
            factor, value = factor * scalar[0], node.inputs[1 - side]
        elif is_op(node, "Identity"):
            value = node.inputs[0]
        else:
            return None
    return None


def _is_last(node: ir.Node, rank: int | None) -> bool:
    axis = attribute(node, "axis", 0)
    return axis == -1 or (rank is not None and axis == rank - 1)

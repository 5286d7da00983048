"""How an axis fares where a node moves elements without computing: picked, sliced, transposed, re-shaped.

Each rule is told one axis of one operand and gives the axes of all operands that belong to it, itself
included, or in words why the channels along it do not stay together in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.ir.channels import channels_of, reshape_end
from onnxq.ir.walk import attribute, axes_of, constant_of, constant_shape, input_of, is_op, rank_of

_FAR_END = 2**31 - 1


@dataclass(frozen=True)
class Spot:
    """An axis of an operand of a node.

    Attributes:
        is_output: Whether the operand is an output of the node.
        index: Which input or output.
        axis: Counted from the end, negative.
        may_stretch: Whether the operand may be broadcast along the axis: then it has one element there, or
            no such axis, and nothing of it belongs to the others.
    """

    is_output: bool
    index: int
    axis: int
    may_stretch: bool = False


Spots = tuple[Spot, ...]


def rank_at(value: ir.Value | None) -> int | None:
    """Number of axes, from the shape or from what made the value."""
    rank = rank_of(value) if value is not None else None
    if value is None or rank is not None:
        return rank
    shape, node = constant_shape(value), value.producer()
    if shape is not None or node is None:
        return None if shape is None else len(shape)
    order = node.attributes.get("perm") if is_op(node, "Transpose") else None
    if order is not None and not order.is_ref():
        return len(order.as_ints())
    target = reshape_end(node) if is_op(node, "Reshape") else ()
    # A part of unknown length, which counts as one size, leaves the rank open.
    return len(target) if target and constant_of(input_of(node, 1)) is not None else None


def _both(at: Spot) -> Spots:
    """The same axis of the first input and of the first output."""
    return (Spot(False, 0, at.axis), Spot(True, 0, at.axis))


def gather(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Rows picked from a table or tensor; the axes behind the picked one stay last."""
    data, indices = input_of(node, 0), input_of(node, 1)
    rank, picks = rank_at(data), rank_at(indices)
    axis = attribute(node, "axis", 0)
    if axis == 0 and at.axis == -1 and (rank or 0) > 1:
        return (Spot(False, 0, -1), Spot(True, 0, -1))
    if axis == at.axis and not at.is_output:
        return "Gather picks channels"
    if rank is None or picks is None:
        return "Gather of an unknown shape"
    axis = axis if axis < 0 else axis - rank
    if at.axis > axis:
        return (Spot(False, 0, at.axis), Spot(True, 0, at.axis))
    behind = picks - 1
    inside = at.axis if not at.is_output else at.axis + behind
    if inside >= axis:
        return "Gather picks channels"
    return (Spot(False, 0, inside), Spot(True, 0, inside - behind))


def transpose(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """The axes in another order."""
    given = node.attributes.get("perm")
    known = next((r for v in (*node.inputs, *node.outputs) if (r := rank_at(v))), None)
    if given is not None and given.is_ref():
        return "the order of the axes is not known"
    perm = tuple(given.as_ints()) if given is not None else tuple(range(known or 0))[::-1]
    rank = len(perm)
    if rank < -at.axis:
        return "the order of the axes is not known"
    if at.is_output:
        return (at, Spot(False, 0, perm[at.axis] - rank))
    return (at, Spot(True, 0, perm.index(at.axis + rank) - rank))


def reshape(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """The axis survives if it is as long, and all axes before it, or all behind it, are the same."""
    given, made = _dims(node.inputs[0]), _dims(node.outputs[0]) or reshape_end(node)
    if at.axis == -1:
        other = node.inputs[0] if at.is_output else node.outputs[0]
        if other is not None and channels_of(other) == channels:
            return (Spot(False, 0, -1), Spot(True, 0, -1))
        return f"{node.op_type} divides the channels or joins them with others"
    here, there = (made, given) if at.is_output else (given, made)
    place = at.axis + len(here)
    for index in range(len(there)) if place >= 0 else ():
        if there[index] != channels or not _same(here, place, there, index):
            continue
        return (at, Spot(not at.is_output, 0, index - len(there)))
    return f"{node.op_type} divides the channels or joins them with others"


def _same(here: tuple[object, ...], place: int, there: tuple[object, ...], index: int) -> bool:
    """Whether two shapes agree on all axes before, or on all axes behind, those at `place` and `index`."""
    before = here[:place] == there[:index] and None not in here[:place]
    behind = here[place + 1 :] == there[index + 1 :] and None not in here[place + 1 :]
    return before or behind


def _dims(value: ir.Value | None) -> tuple[object, ...]:
    """The shape as numbers and symbols, None where nothing is known; () if not even the rank is."""
    shape = value.shape if value is not None and value.shape is not None else constant_shape(value)
    if not shape:
        return _convolved(value.producer() if value is not None else None)
    return tuple(d if isinstance(d, int) else getattr(d, "value", None) for d in shape)


def _convolved(node: ir.Node | None) -> tuple[object, ...]:
    """What the weight of a convolution tells of the shape of its output."""
    weight = constant_shape(input_of(node, 1)) if node is not None and is_op(node, "Conv") else None
    if node is None or weight is None:
        return ()
    return (*_dims(node.inputs[0])[:1], weight[0], *(None for _ in weight[2:]))


def unsqueeze(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Axes of length one appear."""
    return _with_ones(node, at, longer_is_output=True)


def squeeze(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Axes of length one go."""
    return _with_ones(node, at, longer_is_output=False)


def _with_ones(node: ir.Node, at: Spot, *, longer_is_output: bool) -> Spots | str:
    """Axes of length one come or go; they are counted in the longer of the two shapes."""
    axes = axes_of(node)
    longer = node.outputs[0] if longer_is_output else node.inputs[0]
    rank = rank_at(longer)
    if rank is None and axes is not None and longer_is_output:
        short = rank_at(node.inputs[0])
        rank = None if short is None else short + len(axes)
    if axes is None or (rank is None and any(axis >= 0 for axis in axes)):
        return f"the axes of {node.op_type} are not known"
    ones = sorted((axis if axis < 0 else axis - (rank or 0) for axis in axes), reverse=True)
    if at.is_output == longer_is_output:
        if at.axis in ones:
            return f"{node.op_type} takes the channels away"
        return (at, Spot(not at.is_output, 0, at.axis + sum(one > at.axis for one in ones)))
    axis = at.axis
    for one in ones:
        axis -= one >= axis
    return (at, Spot(not at.is_output, 0, axis))


def flatten(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Two axes are left; the last one survives if nothing is joined to it."""
    first, rank = attribute(node, "axis", 1), rank_at(node.inputs[0])
    if at.axis == -1 and (first == -1 or (rank is not None and first == rank - 1)):
        return _both(at)
    return "Flatten joins the channels with others"


def along(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Concat and Split: along another axis than the channels' they leave each channel in its place."""
    known = next((r for v in (*node.outputs, *node.inputs) if (r := rank_at(v))), None)
    axis = attribute(node, "axis", 0)
    if axis >= 0 and known is None:
        return f"the axis of {node.op_type} is not known"
    if at.axis == (axis if axis < 0 else axis - (known or 0)):
        what = (
            "Concat joins the channels with others" if is_op(node, "Concat") else "Split divides the channels"
        )
        return what
    given = len(node.inputs) if is_op(node, "Concat") else 1
    inputs = tuple(Spot(False, index, at.axis) for index in range(given))
    return (*inputs, *(Spot(True, index, at.axis) for index in range(len(node.outputs))))


def slicing(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """A part of other axes, or the whole of this one."""
    starts, ends = constant_of(input_of(node, 1)), constant_of(input_of(node, 2))
    axes, rank = axes_of(node, 3), rank_at(node.inputs[0])
    if axes is None and input_of(node, 3) is None and starts is not None:
        axes = tuple(range(starts.size))
    if axes is None or (rank is None and any(axis >= 0 for axis in axes)):
        return "the axes of Slice are not known"
    places = [axis if axis < 0 else axis - (rank or 0) for axis in axes]
    if at.axis not in places:
        return _both(at)
    index = places.index(at.axis)
    start, end, step = (_number(value, index) for value in (starts, ends, constant_of(input_of(node, 4))))
    whole = start == 0 and end is not None and end >= min(channels, _FAR_END)
    if whole and (input_of(node, 4) is None or step == 1):
        return _both(at)
    return "Slice picks channels"


def _number(array: np.ndarray | None, index: int) -> int | None:
    return None if array is None else int(array.reshape(-1)[index])


def expand(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Axes of length one are repeated."""
    return (Spot(False, 0, at.axis, may_stretch=True), Spot(True, 0, at.axis))


def tile(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """Other axes are repeated."""
    repeats = constant_of(input_of(node, 1))
    if repeats is None or repeats.size < -at.axis or repeats.reshape(-1)[at.axis] != 1:
        return "Tile may repeat the channels"
    return _both(at)


def resize(node: ir.Node, at: Spot, channels: int) -> Spots | str:
    """With sizes given and the same on both sides, the axis is copied; other axes are interpolated alone."""
    alone = input_of(node, 3) is not None and not {"axes", "keep_aspect_ratio_policy"} & set(node.attributes)
    shapes = [_dims(value) for value in (node.inputs[0], node.outputs[0])]
    sizes = [shape[at.axis] if len(shape) >= -at.axis else None for shape in shapes]
    mode = node.attributes.get("coordinate_transformation_mode")
    cropped = mode is not None and (mode.is_ref() or mode.as_string() == "tf_crop_and_resize")
    if not alone or cropped or sizes != [channels, channels]:
        return "Resize is not known to leave the channels alone"
    return _both(at)

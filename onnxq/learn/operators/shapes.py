"""Operators that re-arrange, cut and join tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from onnxq.learn.operators.call import Call, Rule, Tensor, integers_of, tensor_of


def shape(call: Call, x: Tensor) -> Tensor:
    """Shape, or a part of it."""
    sizes = list(x.shape)[slice(call.integer("start", 0), call.integer("end", x.dim()))]
    return torch.tensor(sizes, dtype=torch.int64)


def reshape(call: Call, x: Tensor, target: Tensor) -> Tensor:
    """Reshape; 0 keeps a size unless `allowzero`."""
    sizes = integers_of(target)
    if not call.integer("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(call: Call, x: Tensor) -> Tensor:
    """Flatten to two axes."""
    axis = call.integer("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1) if x.numel() else x.reshape(rows, 0)


def transpose(call: Call, x: Tensor) -> Tensor:
    """Transpose."""
    order = call.integers("perm")
    return x.permute(order if order is not None else list(range(x.dim()))[::-1])


def squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Squeeze the axes named, or all of size one."""
    chosen = call.axes(axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Unsqueeze; axes count in the result."""
    chosen = call.axes(axes) or []
    rank = x.dim() + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def expand(call: Call, x: Tensor, target: Tensor) -> Tensor:
    """Expand, both sides broadcast."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(integers_of(target))))


def split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Split by sizes, or evenly with a smaller rest."""
    axis = call.integer("axis", 0)
    parts = integers_of(sizes) if sizes is not None else call.integers("split")
    if parts is None:
        count = call.integer("num_outputs", len(call.node.outputs))
        parts = [-(-x.shape[axis] // count)] * count
        parts[-1] = x.shape[axis] - sum(parts[:-1])
    return tuple(torch.split(x, parts, axis))


def slice_(
    call: Call,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Slice, with what to cut as inputs or, before opset 10, as attributes."""
    first = integers_of(starts) if starts is not None else call.integers("starts") or []
    last = integers_of(ends) if ends is not None else call.integers("ends") or []
    along = call.axes(axes)
    along = list(range(len(first))) if along is None else along
    by = integers_of(steps) if steps is not None else [1] * len(first)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        x = _cut(x, axis, slice(start, end, step))
    return x


def _cut(x: Tensor, axis: int, part: slice) -> Tensor:
    chosen = range(x.shape[axis])[part]
    if chosen.step > 0:
        index: list[Any] = [slice(None)] * x.dim()
        index[axis] = slice(chosen.start, chosen.stop, chosen.step)
        return x[tuple(index)]
    return x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))


def constant(call: Call) -> Tensor:
    """Constant, in any of its spellings for numbers."""
    attributes = call.node.attributes
    if "value" in attributes:
        return tensor_of(attributes["value"].as_tensor().numpy())
    for name, dtype in (
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        if name in attributes:
            return torch.tensor(attributes[name].value, dtype=dtype)
    raise call.refuse("of strings or of a sparse tensor")


def constant_of_shape(call: Call, sizes: Tensor) -> Tensor:
    """ConstantOfShape."""
    found = call.node.attributes.get("value")
    value = torch.zeros(1) if found is None else tensor_of(found.as_tensor().numpy())
    return value.reshape(()).expand(integers_of(sizes)).clone()


def arange(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Range."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def triangle(call: Call, x: Tensor, offset: Tensor | None = None) -> Tensor:
    """Trilu: the upper or lower triangle, the rest zero."""
    diagonal = int(offset) if offset is not None else 0
    return torch.triu(x, diagonal) if call.integer("upper", 1) else torch.tril(x, diagonal)


def pad(
    call: Call, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    """Pad, each axis in turn: with a constant, or with elements of the tensor."""
    widths = integers_of(pads) if pads is not None else call.integers("pads") or []
    along = integers_of(axes) if axes is not None else list(range(x.dim()))
    mode = call.text("mode", "constant")
    fill = value.item() if value is not None else call.number("value", 0.0)
    for axis, before, after in zip(along, widths[: len(along)], widths[len(along) :], strict=True):
        x = _pad_axis(x, axis % x.dim(), before, after, mode, fill)
    return x


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str, fill: float) -> Tensor:
    size = x.shape[axis]
    if mode == "constant":
        widths = [0, 0] * (x.dim() - 1 - axis) + [before, after]
        return torch.nn.functional.pad(x, widths, value=fill)
    places = torch.arange(-before, size + after)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:
        period = max(2 * (size - 1), 1)
        places = (places % period).minimum(period - places % period)
    return x.index_select(axis, places)


def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """DepthToSpace of images [B, C, H, W]."""
    batch, channels, height, width = x.shape
    block = call.integer("blocksize", 1)
    inner = channels // block**2
    if call.text("mode", "DCR") == "DCR":
        parts = x.reshape(batch, block, block, inner, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(batch, inner, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, inner, height * block, width * block)


def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """SpaceToDepth of images [B, C, H, W]."""
    batch, channels, height, width = x.shape
    block = call.integer("blocksize", 1)
    parts = x.reshape(batch, channels, height // block, block, width // block, block)
    order = (0, 3, 5, 1, 2, 4) if call.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return parts.permute(order).reshape(batch, -1, height // block, width // block)


def tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    """Tile."""
    return x.repeat(integers_of(repeats))


def concat(call: Call, *inputs: Tensor) -> Tensor:
    """Concat."""
    return torch.cat(inputs, call.integer("axis", 0))


SHAPES: Mapping[str, Rule] = {
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Pad": pad,
    "Range": arange,
    "Reshape": reshape,
    "Shape": shape,
    "Size": lambda call, x: torch.tensor(x.numel()),
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
}

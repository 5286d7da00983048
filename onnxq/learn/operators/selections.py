"""Operators that pick elements by index, or find indices."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from onnxq.learn.operators.call import Call, Rule, Tensor, integers_of

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def gather(call: Call, data: Tensor, indices: Tensor) -> Tensor:
    """Gather slices along one axis."""
    axis = call.integer("axis", 0) % max(data.dim(), 1)
    picked = data.index_select(axis, _wrapped(indices, data.shape[axis]).reshape(-1))
    return picked.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


def gather_elements(call: Call, data: Tensor, indices: Tensor) -> Tensor:
    """GatherElements."""
    axis = call.integer("axis", 0)
    return torch.gather(data, axis, _wrapped(indices, data.shape[axis]))


def gather_nd(call: Call, data: Tensor, indices: Tensor) -> Tensor:
    """GatherND, batch axes included."""
    return data[_places(data, indices, call.integer("batch_dims", 0))]


def _places(data: Tensor, indices: Tensor, batch: int) -> tuple[Tensor, ...]:
    """Indices for each leading axis of `data`: the batch axes first, then those in `indices`."""
    own = []
    for axis in range(batch):
        shape = [1] * (indices.dim() - 1)
        shape[axis] = data.shape[axis]
        own.append(torch.arange(data.shape[axis]).reshape(shape))
    return (*own, *indices.long().unbind(-1))


def scatter_elements(call: Call, data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """ScatterElements."""
    axis, reduction = call.integer("axis", 0), call.text("reduction", "none")
    places = _wrapped(indices, data.shape[axis])
    if reduction == "none":
        return data.scatter(axis, places, updates)
    return data.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


def scatter_nd(call: Call, data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """ScatterND that replaces or adds."""
    reduction = call.text("reduction", "none")
    if reduction not in ("none", "add"):
        raise call.refuse(f"with reduction {reduction!r}")
    return data.index_put(_places(data, indices, 0), updates, accumulate=reduction == "add")


def one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """OneHot."""
    size, axis = integers_of(depth)[0], call.integer("axis", -1)
    axis = axis % (indices.dim() + 1)
    levels = torch.arange(size).reshape([-1] + [1] * (indices.dim() - axis))
    inside = (indices >= -size) & (indices < size)
    hot = (indices.long() % size).unsqueeze(axis).eq(levels) & inside.unsqueeze(axis)
    return torch.where(hot, values[1], values[0])


def cumulate(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    """CumSum, also backwards and without the element itself."""
    along = int(axis)
    backwards = bool(call.integer("reverse", 0))
    ordered = x.flip(along) if backwards else x
    sums = torch.cumsum(ordered, along, dtype=x.dtype)
    sums = sums - ordered if call.integer("exclusive", 0) else sums
    return sums.flip(along) if backwards else sums


def extreme_index(call: Call, x: Tensor) -> Tensor:
    """ArgMax and ArgMin; of equals the first, or the last if so asked."""
    axis = call.integer("axis", 0) % x.dim()
    least = call.node.op_type == "ArgMin"
    last = bool(call.integer("select_last_index", 0))
    given = x.flip(axis) if last else x
    extreme = given.amin(axis, keepdim=True) if least else given.amax(axis, keepdim=True)
    place = given.eq(extreme).to(torch.int8).argmax(axis, keepdim=bool(call.integer("keepdims", 1)))
    return x.shape[axis] - 1 - place if last else place


def top(call: Call, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """TopK, of equals the first ones."""
    axis = call.integer("axis", -1)
    values, places = torch.sort(x, dim=axis, descending=bool(call.integer("largest", 1)), stable=True)
    size = integers_of(count)[0]
    return values.narrow(axis, 0, size), places.narrow(axis, 0, size)


def _wrapped(indices: Tensor, size: int) -> Tensor:
    """Indices as int64 with negative ones counted from the end."""
    whole = indices.long()
    return torch.where(whole < 0, whole + size, whole)


SELECTIONS: Mapping[str, Rule] = {
    "ArgMax": extreme_index,
    "ArgMin": extreme_index,
    "CumSum": cumulate,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": lambda call, x: torch.nonzero(x).T,
    "OneHot": one_hot,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TopK": top,
}

"""Masks as the Attention operator wants them: expanded once, and with rows that see a key told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.walk import constant_of, constant_shape, input_of, is_op, producer, rank_of, root_of

_CLIMB_LIMIT = 12
_ELEMENTWISE = ("Where", "Cast", "Mul", "Sub", "Add", "And", "Or", "Not", "Identity", "Div", "Max", "Min")


@dataclass(frozen=True)
class PreparedMask:
    """A mask for the operator.

    Attributes:
        mask: Batch or 1, 1 or heads, queries, keys; None without a mask.
        seen: Batch or 1, queries, 1: 1 where a query sees a key, 0 where it sees none; None if nobody asked.
    """

    mask: ir.Value | None
    seen: ir.Value | None


def mask_obstacle(mask: ir.Value, *, is_guarded: bool) -> str:
    """Why `mask` cannot be prepared; "" if it can."""
    rank = rank_of(mask)
    rank = len(shape) if rank is None and (shape := constant_shape(mask)) is not None else rank
    if rank is None or rank > 4:
        return "the mask has no known number of axes, or more than four"
    if mask.dtype not in (None, ir.DataType.FLOAT):
        return "the mask is not float32"
    if is_guarded and not _is_one(mask, -3):
        return "each head has a mask of its own, and rows are guarded against NaN"
    return ""


def prepare_mask(
    mask: ir.Value, queries: ir.Value, keys: ir.Value, edit: Edit, *, before: ir.Node, is_guarded: bool
) -> PreparedMask:
    """The mask as the operator wants it, made once for all layers that share it.

    Args:
        mask: What is added to the scores.
        queries: Batch, position, channels; or batch, head, position, channels.
        keys: The same of the keys.
        edit: The edit that inserts what is missing.
        before: The node that needs it.
        is_guarded: Whether rows that see no key must become zeros.
    """
    mask = _first_like(mask, edit)
    full = mask
    if not _is_full(mask, queries, keys):
        made = _stretched_alike(mask, queries, keys, edit, before)
        full = made if made is not None else _expanded(mask, queries, keys, edit, before)
    if not is_guarded:
        return PreparedMask(full, None)
    visible = _made(full, "Where", edit, before)
    sees = producer(visible, "Where")
    factor = _made(sees.inputs[0], "Cast", edit, before) if sees is not None else None
    seen = _made(factor, "Squeeze", edit, before)
    return PreparedMask(visible, seen) if seen is not None else _told_apart(full, edit, before)


def _told_apart(full: ir.Value, edit: Edit, before: ir.Node) -> PreparedMask:
    """Rows that see a key, and the mask without the others."""
    name = str(full.name)
    (reach,) = edit.insert(
        "ReduceMax",
        [full, edit.constant(np.array([-1], np.int64), f"{name}_keys", near=before)],
        {"keepdims": 1},
        before=before,
        names=[f"{name}_reach"],
    )
    lowest = edit.constant(np.array(-np.inf, np.float32), f"{name}_lowest", near=before)
    (sees,) = edit.insert("Greater", [reach, lowest], before=before, names=[f"{name}_sees"])
    zero = edit.constant(np.array(0, np.float32), f"{name}_zero", near=before)
    (visible,) = edit.insert("Where", [sees, full, zero], before=before, names=[f"{name}_visible"], like=full)
    kind = {"to": int(ir.DataType.FLOAT)}
    (factor,) = edit.insert("Cast", [sees], kind, before=before, names=[f"{name}_factor"])
    heads = edit.constant(np.array([1], np.int64), f"{name}_heads", near=before)
    (seen,) = edit.insert("Squeeze", [factor, heads], before=before, names=[f"{name}_seen"])
    sees.dtype, factor.dtype, seen.dtype = ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.FLOAT
    seen.shape = ir.Shape([None, None, 1])
    return PreparedMask(visible, seen)


def _expanded(mask: ir.Value, queries: ir.Value, keys: ir.Value, edit: Edit, before: ir.Node) -> ir.Value:
    """`mask` stretched over all queries and keys."""
    name = str(mask.name)
    sizes = [
        edit.insert("Shape", [value], {"start": -2, "end": -1}, before=before, names=[f"{name}_{what}"])[0]
        for value, what in ((queries, "queries"), (keys, "keys"))
    ]
    ones = edit.constant(np.ones(2, np.int64), f"{name}_ones", near=before)
    (shape,) = edit.insert("Concat", [ones, *sizes], {"axis": 0}, before=before, names=[f"{name}_full_shape"])
    return edit.insert("Expand", [mask, shape], before=before, names=[f"{name}_full"])[0]


def _stretched_alike(
    mask: ir.Value, queries: ir.Value, keys: ir.Value, edit: Edit, before: ir.Node
) -> ir.Value | None:
    """`mask` as an earlier layer stretched it, if its queries and keys are known to be as many.

    They need not be: a decoder reads the keys of its encoder under the mask that these have themselves.
    """
    for full in _all_made(mask, "Expand", edit, before):
        expand = full.producer()
        sizes = producer(expand.inputs[1], "Concat") if expand is not None else None
        shapes = [producer(size, "Shape") for size in sizes.inputs[1:]] if sizes is not None else []
        asked = [shape.inputs[0] for shape in shapes if shape is not None]
        if len(asked) == 2 and _are_as_long(asked[0], queries) and _are_as_long(asked[1], keys):
            return full
    return None


def _are_as_long(one: ir.Value | None, other: ir.Value) -> bool:
    """Whether two values are known to have as many positions, along their last axis but one."""
    if one is other:
        return True
    if one is None or one.shape is None or other.shape is None:
        return False
    return one.shape[-2] == other.shape[-2] and _known(one.shape[-2]) is not None


def _made(value: ir.Value | None, op_type: str, edit: Edit, before: ir.Node) -> ir.Value | None:
    """The first that this edit's owner made of `value` by `op_type` for an earlier layer of the graph."""
    return next(_all_made(value, op_type, edit, before), None)


def _all_made(value: ir.Value | None, op_type: str, edit: Edit, before: ir.Node) -> Iterator[ir.Value]:
    """All of these."""
    for node, _ in value.uses() if value is not None else ():
        ours = node.metadata_props.get("onnxq.pass") == edit.owner and node.graph is before.graph
        if ours and node.op_type == op_type:
            yield node.outputs[0]


def _first_like(mask: ir.Value, edit: Edit) -> ir.Value:
    """The mask of an earlier layer that is computed by the same operator from the same values."""
    node = mask.producer()
    source = next((value for value in node.inputs if value is not None), None) if node is not None else None
    if node is None or source is None:
        return mask
    for user, _ in source.uses():
        if user is node or user.graph is not node.graph or not _are_alike(user, node):
            continue
        other = user.outputs[0]
        if any(reader.metadata_props.get("onnxq.pass") == edit.owner for reader, _ in other.uses()):
            return other
    return mask


def _are_alike(one: ir.Node, other: ir.Node) -> bool:
    same_kind = is_op(one, other.op_type) and not one.attributes and not other.attributes
    if not same_kind or len(one.inputs) != len(other.inputs):
        return False
    return all(a is b or _same_constant(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))


def _same_constant(one: ir.Value | None, other: ir.Value | None) -> bool:
    left, right = constant_of(one), constant_of(other)
    return left is not None and right is not None and np.array_equal(left, right)


def _is_full(mask: ir.Value, queries: ir.Value, keys: ir.Value) -> bool:
    """Whether `mask` is known to have four axes, the last of which are queries and keys."""
    if mask.shape is None or len(mask.shape) != 4 or queries.shape is None or keys.shape is None:
        return False
    return (
        mask.shape[2] == queries.shape[-2]
        and mask.shape[3] == keys.shape[-2]
        and None not in (_known(mask.shape[2]), _known(mask.shape[3]))
    )


def _known(size: object) -> object:
    return size if isinstance(size, int) else getattr(size, "value", None)


def _is_one(value: ir.Value | None, axis: int, climb: int = _CLIMB_LIMIT) -> bool:
    """Whether `value` is known to have length one along `axis`, counted from the end, or no such axis."""
    if value is None or climb <= 0:
        return False
    shape = value.shape if value.shape is not None else constant_shape(value)
    if shape is not None and (len(shape) < -axis or shape[axis] == 1):
        return True
    node = value.producer()
    if root_of(value) is not None or node is None:
        return False
    if is_op(node, "Expand"):
        return _is_one(node.inputs[0], axis, climb - 1) and _keeps(input_of(node, 1), axis)
    if is_op(node, *_ELEMENTWISE):
        return all(_is_one(each, axis, climb - 1) for each in node.inputs)
    return False


def _keeps(target: ir.Value | None, axis: int) -> bool:
    """Whether the target of an Expand says 1 along `axis`; exporters write -1 and put 1 in its place."""
    chosen = producer(target, "Where")
    if chosen is not None and is_op(producer(chosen.inputs[0]), "Equal"):
        target = chosen.inputs[2]
    parts = producer(target, "Concat")
    if parts is None:
        array = constant_of(target)
        return array is not None and array.ndim == 1 and array.size >= -axis and abs(array[axis]) == 1
    sizes = [constant_of(part) for part in parts.inputs]
    flat: list[int | None] = []
    for part, array in zip(parts.inputs, sizes, strict=True):
        if array is None and (part is None or part.shape != (1,)):
            return False
        flat += [None] if array is None else [int(size) for size in array.reshape(-1)]
    size = flat[axis] if len(flat) >= -axis else None
    return size is not None and abs(size) == 1

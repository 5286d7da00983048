"""Heads of keys and values that are repeated for several heads of queries; swapped axes: in all spellings.

    repeated:  [B, G, T, D] -> Unsqueeze [B, G, 1, T, D] -> Expand [B, G, R, T, D] -> Reshape [B, G·R, T, D]
    swapped:   Transpose (0, 1, 3, 2); or Reshape to three axes, Transpose (0, 2, 1), Reshape back

Which shapes are computed at run time is read off the shapes that the graph states of its values: sizes are
the same where they are the same number or go by the same name.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.edit import label_of
from onnxq.ir.walk import axes_of, constant_of, input_of, is_op, producer

_CLIMB_LIMIT = 4


@dataclass(frozen=True, eq=False)
class Repeated:
    """Heads that are repeated, each one in a row.

    Attributes:
        source: What is repeated, [B, G, T, D].
        groups: G.
        times: How often each is repeated.
    """

    source: ir.Value
    groups: int
    times: int


def find_repeated(value: ir.Value | None) -> Repeated | Reject | None:
    """What is repeated to give `value`; a `Reject` if the shapes do not tell; None for anything else."""
    merge = producer(value, "Reshape")
    stretch = producer(merge.inputs[0], "Expand") if merge is not None else None
    lifted = producer(stretch.inputs[0], "Unsqueeze") if stretch is not None else None
    if merge is None or stretch is None or lifted is None or axes_of(lifted) not in ((2,), (-3,)):
        return None
    source = lifted.inputs[0]
    before, after = _sizes(source), _sizes(merge.outputs[0])
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return Reject("how many heads are repeated is not known", label_of(merge))
    groups, heads = before[1], after[1]
    times = _stretched(stretch)
    if not isinstance(groups, int) or times is None or heads != groups * times:
        return Reject("how often heads are repeated is not known", label_of(merge))
    if any(before[axis] is None or before[axis] != after[axis] for axis in (0, 2, 3)):
        return Reject("more than the heads may be stretched", label_of(merge))
    assert source is not None
    return Repeated(source, groups, times)


def find_swapped(value: ir.Value | None) -> ir.Value | None:
    """What `value` is, but for its last two axes, of four, being swapped; None for anything else."""
    swap = producer(value, "Transpose")
    if swap is not None:
        return swap.inputs[0] if _order(swap) == (0, 1, 3, 2) else None
    back = producer(value, "Reshape")
    swap = producer(back.inputs[0], "Transpose") if back is not None else None
    flat = producer(swap.inputs[0], "Reshape") if swap is not None and _order(swap) == (0, 2, 1) else None
    if flat is None or back is None:
        return None
    source, middle, last = _sizes(flat.inputs[0]), _sizes(flat.outputs[0]), _sizes(back.outputs[0])
    if source is None or middle is None or last is None or (len(source), len(last)) != (4, 4):
        return None
    known = None not in source and middle[1:] == source[2:]
    return flat.inputs[0] if known and last == (*source[:2], source[3], source[2]) else None


def _stretched(stretch: ir.Node) -> int | None:
    """How long an Expand makes axis 2."""
    shape = _sizes(stretch.outputs[0])
    if shape is not None and len(shape) == 5 and isinstance(shape[2], int):
        return shape[2]
    return _entry(input_of(stretch, 1), 2, 5)


def _entry(target: ir.Value | None, index: int, length: int, climb: int = _CLIMB_LIMIT) -> int | None:
    """The number at one place of a computed shape of `length` numbers, if that place is constant and no 1."""
    found = constant_of(target)
    if found is not None:
        return (
            int(found.reshape(-1)[index]) if found.size == length and found.reshape(-1)[index] > 1 else None
        )
    node = target.producer() if target is not None else None
    if node is None or not climb:
        return None
    if is_op(node, "Concat") and len(node.inputs) == length:  # so each is one number, or some are none
        parts = [_sizes(each) for each in node.inputs]
        if all(part == (1,) for part in parts) or all(part in ((1,), None) for part in parts):
            return _entry(node.inputs[index], 0, 1, climb - 1)
    if is_op(node, "Where"):  # a -1, which keeps a size, turned into the 1 that Expand knows
        check = producer(node.inputs[0], "Equal")
        minus = constant_of(check.inputs[1]) if check is not None else None
        if (
            check is not None
            and check.inputs[0] is node.inputs[2]
            and minus is not None
            and (minus < 0).all()
        ):
            return _entry(node.inputs[2], index, length, climb - 1)
    return None


def same_sizes(first: ir.Value | None, second: ir.Value | None, axes: tuple[tuple[int, int], ...]) -> bool:
    """Whether pairs of axes of two values are known to be equally long."""
    left, right = _sizes(first), _sizes(second)
    if left is None or right is None:
        return False
    return all(left[a] is not None and left[a] == right[b] for a, b in axes)


def _sizes(value: ir.Value | None) -> tuple[int | str | None, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else size.value for size in value.shape)


def _order(node: ir.Node) -> tuple[int, ...]:
    found = node.attributes.get("perm")
    return tuple(found.as_ints()) if found is not None and not found.is_ref() else ()

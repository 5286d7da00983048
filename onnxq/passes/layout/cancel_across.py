"""Transpose(f(Transpose(x, p)), q)  =>  f'(x),  q undoing p, f' being f on the axes as x has them

f is a chain of functions of single elements, quantizations on one grid, slices, and DepthToSpace between
channels in front and channels last, which there is a Reshape, a Transpose of whole runs of channels, and a
Reshape. Instead of those, the chain may hold one Reshape that divides or joins axes that lie next to one
another in x too: then all three are one Reshape.

Fires on what an exporter puts between tokens and images, and between convolutions that want their channels
last. Every node of the chain must be read by the next alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.convolution import is_pointwise, only_reader, size_along
from onnxq.ir.walk import attribute, constant_of, input_of, is_op
from onnxq.passes.clean.forward import integers_of
from onnxq.passes.vision_evidence import across_examples

_CHANNELS_FIRST = (0, 3, 1, 2)
_LIMIT = 8


@dataclass(frozen=True, eq=False)
class Between:
    """What lies between two transposes that cancel.

    Attributes:
        source: What the first transposes.
        axes: The axes of `source` in the order the first gives them.
        chain: What comes between, the first first.
        last: The second transpose.
        target: With a Reshape in the chain: what it is to reshape to.
    """

    source: ir.Value
    axes: tuple[int, ...]
    chain: tuple[ir.Node, ...]
    last: ir.Node
    target: tuple[int, ...] | None = None


@dataclass(frozen=True)
class CancelAcross(Pass):
    """Remove two transposes that undo one another with something between them."""

    name: ClassVar[str] = "cancel-across"
    contract: ClassVar[Contract] = Contract.BITWISE
    needs: ClassVar[Needs] = Needs(opset=13)

    def match(self, node: ir.Node, context: Context) -> Between | Reject | None:
        """The second transpose, and the first above a chain that can do without them."""
        after = integers_of(node, "perm") if is_op(node, "Transpose") else None
        if after is None:
            return None
        chain: list[ir.Node] = []
        value = node.inputs[0]
        while value is not None and len(chain) <= _LIMIT and only_reader(value) is not None:
            made = value.producer()
            if made is None:
                return None
            if is_op(made, "Transpose"):
                return _between(made, tuple(chain), node, after) if chain else None
            if not _may_pass(made):
                return None
            chain.insert(0, made)
            value = made.inputs[0]
        return None

    def rewrite(self, found: Between, edit: Edit) -> None:
        """The chain again, on the axes as they are in front of the first transpose."""
        value = found.source
        for node in found.chain:
            made = _again(node, value, found, edit)
            if value.type is not None:
                made.type = value.type
            if is_op(node, "QuantizeLinear", "DequantizeLinear"):
                made.type = node.outputs[0].type
            value = made
        edit.take_over(found.last.outputs[0], value)

    @classmethod
    def examples(cls) -> Examples:
        """Slices, functions, DepthToSpace, divided and joined axes; chains that are shared or mix axes."""
        return across_examples()


def _may_pass(node: ir.Node) -> bool:
    if is_op(node, "QuantizeLinear", "DequantizeLinear"):
        grid = [constant_of(value) for value in node.inputs[1:] if value is not None]
        return bool(grid) and all(array is not None and array.size == 1 for array in grid)
    return is_pointwise(node) or is_op(node, "Slice", "DepthToSpace", "Reshape")


def _between(
    first: ir.Node, chain: tuple[ir.Node, ...], last: ir.Node, after: tuple[int, ...]
) -> Between | Reject | None:
    before, source = integers_of(first, "perm"), first.inputs[0]
    if before is None or source is None or first.graph is not last.graph:
        return None
    if any(is_op(node, "Reshape") for node in chain):
        return _reshaped(source, before, chain, last, after)
    if len(before) != len(after) or any(before[axis] != place for place, axis in enumerate(after)):
        return Reject("the transposes do not undo one another", label_of(last))
    for node in chain:
        if reason := _obstacle(node, before):
            return Reject(reason, label_of(last))
    return Between(source, before, chain, last)


def _obstacle(node: ir.Node, before: tuple[int, ...]) -> str:
    if is_op(node, "Slice"):
        return "" if _sliced(node, len(before)) is not None else "the axes that are sliced are not known"
    if is_op(node, "DepthToSpace"):
        mode = node.attributes.get("mode")
        if before != _CHANNELS_FIRST or (mode is not None and (mode.is_ref() or mode.as_string() != "DCR")):
            return "DepthToSpace would move single channels"
        known = size_along(node.outputs[0], 1), size_along(node.outputs[0], 3)
        return "" if None not in known else "the size of what DepthToSpace gives is not known"
    return ""


def _sliced(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    """The axes that a Slice names, or the first ones if it names none."""
    given = input_of(node, 3)
    if given is None:
        starts = constant_of(input_of(node, 1))
        return None if starts is None else tuple(range(starts.size))
    axes = constant_of(given)
    return None if axes is None else tuple(int(axis) % rank for axis in axes.reshape(-1))


def _reshaped(
    source: ir.Value,
    before: tuple[int, ...],
    chain: tuple[ir.Node, ...],
    last: ir.Node,
    after: tuple[int, ...],
) -> Between | Reject | None:
    """One Reshape among functions of single elements."""
    (reshape, *others) = [node for node in chain if is_op(node, "Reshape", "Slice", "DepthToSpace")]
    if others or not is_op(reshape, "Reshape"):
        return Reject("more than one node between the transposes moves elements", label_of(last))
    given, made = _dims(source), _dims(reshape.outputs[0])
    if given is None or made is None or len(given) != len(before) or len(made) != len(after):
        return Reject("the shapes between the transposes are not known", label_of(last))
    divided = _divide([given[axis] for axis in before], made, before)
    if divided is None:
        return Reject("the Reshape mixes axes", label_of(last))
    labels = [divided[axis] for axis in after]
    if labels != sorted(labels):
        return Reject("the transposes do not undo one another", label_of(last))
    sizes = [made[axis] for axis in after]
    unknown = [place for place, size in enumerate(sizes) if size is None]
    if len(unknown) > 1 or 0 in sizes:
        return Reject("the shapes between the transposes are not known", label_of(last))
    kept = [0 if labels[place][0] == place else -1 for place in range(len(sizes))]
    target = (kept[place] if size is None else size for place, size in enumerate(sizes))
    return Between(source, before, chain, last, tuple(target))


def _divide(
    old: list[int | None], new: list[int | None], names: tuple[int, ...]
) -> list[tuple[int, int]] | None:
    """For each axis of the result, the axes of the source it is part of or joins: (first of them, part).

    Sizes None are unknown: such an axis is taken to stay as it is, which the other sizes have to bear out.
    """
    labels: list[tuple[int, int]] = []
    i = 0
    j = 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:  # also two unknown ones
            labels.append((names[i], 0))
            i, j = i + 1, j + 1
            continue
        left, right, first, part = old[i], new[j], i, 0
        labels.append((names[i], 0))
        while left != right:
            if left is None or right is None:
                return None
            if left < right:
                i += 1
                if i >= len(old) or names[i] != names[i - 1] + 1:
                    return None
                size = old[i]
                left = None if size is None else left * size
            else:
                j, part = j + 1, part + 1
                if j >= len(new) or i != first:
                    return None
                labels.append((names[first], part))
                size = new[j]
                right = None if size is None else right * size
        i, j = i + 1, j + 1
    return labels if i == len(old) and j == len(new) else None


def _dims(value: ir.Value) -> list[int | None] | None:
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else None for dim in value.shape]


def _again(node: ir.Node, value: ir.Value, found: Between, edit: Edit) -> ir.Value:
    """What `node` does, on the axes of the source."""
    label, last = label_of(found.last), found.last

    def numbers(array: object, what: str) -> ir.Value:
        return edit.constant(np.array(array, np.int64), f"{label}_{what}", near=last)

    def step(
        op_type: str, inputs: list[ir.Value | None], attributes: dict[str, object] | None = None
    ) -> ir.Value:
        return edit.insert(op_type, inputs, attributes, before=last, names=[f"{label}_{op_type}"])[0]

    if is_op(node, "Reshape"):
        return step("Reshape", [value, numbers(found.target, "shape")])
    if is_op(node, "Slice"):
        axes = [found.axes[axis] for axis in _sliced(node, len(found.axes)) or ()]
        return step("Slice", [value, node.inputs[1], node.inputs[2], numbers(axes, "axes"), *node.inputs[4:]])
    if is_op(node, "DepthToSpace"):
        block = attribute(node, "blocksize", 1)
        columns, width = size_along(node.outputs[0], 1) or 0, size_along(node.outputs[0], 3) or 0
        apart = step("Reshape", [value, numbers([0, 0, 0, block, block * columns], "runs")])
        dealt = step("Transpose", [apart], {"perm": (0, 1, 3, 2, 4)})
        height = size_along(node.outputs[0], 2) or -1
        return step("Reshape", [dealt, numbers([0, height, width, columns], "dealt")])
    return step(node.op_type, [value, *node.inputs[1:]], dict(node.attributes))

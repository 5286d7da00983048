"""Reshape(f(x), s) => Reshape(x, s), where f is a Reshape, Flatten, Squeeze or Unsqueeze: f moves no element.

Also a reshape of any kind to the shape that x has already => x. The first law needs a constant s without
zeros: a zero copies a dimension of f(x), which x need not have (unless `allowzero` makes it a plain zero). -1
is fine, since the number of elements is the same. The second law needs all dimensions but one known and
equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import constant_of, is_op
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.forward import OUTER, integer_of, repeats

COPIES = "the shape copies a dimension of the first reshape"
_KINDS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Detour:
    """`node` reshapes what `source` holds, or gives just that where it is redundant."""

    node: ir.Node
    source: ir.Value
    redundant: bool


@dataclass(frozen=True)
class MergeReshapes(Pass):
    """Reshape once instead of twice, and not at all where the shape is right already."""

    name: ClassVar[str] = "merge-reshapes"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> Detour | Reject | None:
        """The last of a chain of reshapes."""
        if not is_op(node, *_KINDS) or not node.inputs or node.inputs[0] is None:
            return None
        source = node.inputs[0]
        shape = _target(node)
        if _is_shape_of(source, shape, node):
            return repeats(node, source) or Detour(node, source, redundant=True)
        first = source.producer()
        if (
            first is None
            or not is_op(first, *_KINDS)
            or first.graph is not node.graph
            or first.inputs[0] is None
        ):
            return None
        if _is_inverse(first, node):
            return repeats(node, first.inputs[0]) or Detour(node, first.inputs[0], redundant=True)
        if shape is None or not is_op(node, "Reshape"):
            return None
        if 0 in shape and integer_of(node, "allowzero", 0) != 1:
            return Reject(COPIES, label_of(node))
        return Detour(node, first.inputs[0], redundant=False)

    def rewrite(self, found: Detour, edit: Edit) -> None:
        """Read the source directly."""
        skipped = found.node.inputs[0]
        if found.redundant:
            edit.replace(found.node.outputs[0], found.source)
            edit.remove_unused(found.node)
            return
        edit.rewire(found.node, 0, found.source)
        producer = skipped.producer() if skipped is not None else None
        if producer is not None:
            edit.remove_unused(producer)

    @classmethod
    def examples(cls) -> Examples:
        """Chains, round trips, shapes that are right already; zeros and shapes known only at run time."""
        return evidence(_FIRES, _HOLDS)


def _target(node: ir.Node) -> tuple[int, ...] | None:
    """The constant shape that a Reshape is given."""
    if not is_op(node, "Reshape") or len(node.inputs) != 2 or node.inputs[1] is None:
        return None
    constant = constant_of(node.inputs[1])
    return None if constant is None or constant.ndim != 1 else tuple(int(size) for size in constant)


def _is_shape_of(source: ir.Value, shape: tuple[int, ...] | None, node: ir.Node) -> bool:
    """Whether `source` has `shape` for certain: each size equal or copied, one left to the element count."""
    known = source.shape
    if shape is None or known is None or len(known) != len(shape) or integer_of(node, "allowzero", 0) != 0:
        return False
    open_ends = 0
    for wished, size in zip(shape, known, strict=True):
        if wished == 0 or (isinstance(size, int) and wished == size):
            continue
        if wished != -1:
            return False
        open_ends += 1
    return open_ends == 0 or (open_ends == 1 and all(size != 0 for size in known))


def _is_inverse(first: ir.Node, second: ir.Node) -> bool:
    """Whether `second` squeezes exactly the axes that `first` unsqueezed, or the other way round."""
    if {first.op_type, second.op_type} != {"Squeeze", "Unsqueeze"}:
        return False
    squeeze, unsqueeze = (first, second) if first.op_type == "Squeeze" else (second, first)
    wide = unsqueeze.outputs[0] if squeeze is second else squeeze.inputs[0]
    rank = None if wide is None or wide.shape is None else len(wide.shape)
    removed, added = _axes(squeeze, rank), _axes(unsqueeze, rank)
    return removed is not None and removed == added


def _axes(node: ir.Node, rank: int | None) -> frozenset[int] | None:
    """Axes of the wider tensor, counted from the front; None if unknown."""
    axes = None
    if "axes" in node.attributes and not node.attributes["axes"].is_ref():
        axes = np.asarray(node.attributes["axes"].as_ints())
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = constant_of(node.inputs[1])
    if axes is None or (rank is None and bool((axes < 0).any())):
        return None
    return frozenset(int(axis) + (rank or 0 if axis < 0 else 0) for axis in axes.reshape(-1))


_X, _Y = "float[2,3,4] x", "float[A,B] y"
_TWICE = "a = Reshape(x, s)  y = Reshape(a, t)"
_FIRES = (
    graph(_TWICE, _X, _Y, constants="int64[2] s = {6, 4}, int64[2] t = {-1, 8}"),
    graph(
        "a = Flatten<axis = 2>(x)  y = Reshape(a, t)  z = Relu(a)",
        _X,
        f"{_Y}, float[C,D] z",
        constants="int64[2] t = {-1, 8}",
    ),
    graph(
        "a = Unsqueeze(x, u)  y = Reshape(a, t)", _X, _Y, constants="int64[2] t = {4, 6}, int64[1] u = {0}"
    ),
    graph(
        "a = Relu(x)  b = Reshape(a, t)  y = Tanh(b)",
        "float[N,3,4] x",
        "float[A,B,C] y",
        constants="int64[3] t = {0, -1, 4}, float[N,3,4] a",
    ),
    graph(
        "a = Unsqueeze(x, u)  b = Squeeze(a, u)  y = Relu(b)",
        _X,
        "float[A,B,C] y",
        constants="int64[1] u = {1}",
    ),
)
_HOLDS = (
    (graph(_TWICE, _X, _Y, constants="int64[2] s = {6, 4}, int64[2] t = {0, -1}"), COPIES),
    (graph("y = Reshape(x, t)", _X, "float[A,B,C] y", constants="int64[3] t = {2, 3, 4}"), OUTER),
    (graph(_TWICE, f"{_X}, int64[2] t", _Y, constants="int64[2] s = {6, 4}"), ""),
    (graph("a = Relu(x)  y = Reshape(a, t)", _X, _Y, constants="int64[2] t = {-1, 8}"), ""),
)

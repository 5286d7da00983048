"""Transpose(Transpose(x, p), q) => Transpose(x, p after q), which is x where q undoes p.

Also a single Transpose that permutes nothing => x. Output axis i of the pair is axis p[q[i]] of x. Two
transposes that do not cancel are merged only if nobody else reads the first: otherwise nothing is saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import is_op
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.forward import OUTER, integers_of, repeats

SHARED = "the first transpose is read elsewhere"


@dataclass(frozen=True)
class Permutation:
    """`node` gives the axes of `source` in the order `axes`; None stands for the order as it is."""

    node: ir.Node
    source: ir.Value
    axes: tuple[int, ...] | None


@dataclass(frozen=True)
class CancelTransposes(Pass):
    """Remove transposes that undo one another, and merge two that do not."""

    name: ClassVar[str] = "cancel-transposes"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> Permutation | Reject | None:
        """The second of two transposes, or one that changes nothing."""
        source = node.inputs[0] if is_op(node, "Transpose") and node.inputs else None
        if source is None:
            return None
        axes = _axes(node)
        if axes is not None and _is_in_order(axes):
            return repeats(node, source) or Permutation(node, source, None)
        first = source.producer()
        if first is None or not is_op(first, "Transpose") or first.graph is not node.graph:
            return None
        return _pair(node, first, axes)

    def rewrite(self, found: Permutation, edit: Edit) -> None:
        """Read the source directly, permuted once or not at all."""
        skipped = found.node.inputs[0]
        if found.axes is None:
            edit.replace(found.node.outputs[0], found.source)
            edit.remove_unused(found.node)
            return
        edit.set_attribute(found.node, "perm", list(found.axes))
        edit.rewire(found.node, 0, found.source)
        producer = skipped.producer() if skipped is not None else None
        if producer is not None:
            edit.remove_unused(producer)

    @classmethod
    def examples(cls) -> Examples:
        """Inverse pairs, merged pairs, the default order; shared ones and those an output needs."""
        return evidence(_FIRES, _HOLDS)


def _pair(node: ir.Node, first: ir.Node, axes: tuple[int, ...] | None) -> Permutation | Reject | None:
    origin = first.inputs[0]
    before = _axes(first)
    if origin is None:
        return None
    if axes is None and before is None:
        both_reverse = "perm" not in node.attributes and "perm" not in first.attributes
        return (repeats(node, origin) or Permutation(node, origin, None)) if both_reverse else None
    rank = len(axes or before or ())
    after = axes or tuple(reversed(range(rank)))
    before = before or tuple(reversed(range(rank)))
    if len(after) != len(before):
        return None
    merged = tuple(before[axis] for axis in after)
    if _is_in_order(merged):
        return repeats(node, origin) or Permutation(node, origin, None)
    if len(first.outputs[0].uses()) > 1 or first.outputs[0].is_graph_output():
        return Reject(SHARED, label_of(node))
    return Permutation(node, origin, merged)


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    """The permutation, None where it is the default one of an unknown rank or a function's parameter."""
    if "perm" in node.attributes:
        return integers_of(node, "perm")
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    return tuple(reversed(range(len(source.shape))))


def _is_in_order(axes: tuple[int, ...]) -> bool:
    return axes == tuple(range(len(axes)))


_X, _Y = "float[2,3,4] x", "float[A,B,C] y"
_FIRES = (
    graph("a = Transpose<perm = [1, 2, 0]>(x)  b = Transpose<perm = [2, 0, 1]>(a)  y = Relu(b)", _X, _Y),
    graph("a = Transpose<perm = [1, 2, 0]>(x)  y = Transpose<perm = [1, 2, 0]>(a)", _X, _Y),
    graph("a = Relu(x)  b = Transpose(a)  y = Transpose(b)", _X, _Y),
    graph("a = Relu(x)  y = Transpose<perm = [0, 1, 2]>(a)", _X, _Y),
    graph("a = Transpose(x)  b = Transpose<perm = [2, 0, 1]>(a)  y = Relu(b)", _X, _Y),
)
_HOLDS = (
    (
        graph(
            "a = Transpose<perm = [1, 2, 0]>(x)  y = Transpose<perm = [1, 2, 0]>(a)  z = Relu(a)",
            _X,
            f"{_Y}, float[D,E,F] z",
        ),
        SHARED,
    ),
    (graph("a = Transpose<perm = [1, 2, 0]>(x)  y = Transpose<perm = [2, 0, 1]>(a)", _X, _Y), OUTER),
    (graph("y = Transpose<perm = [0, 1, 2]>(x)", _X, _Y), OUTER),
    (graph("y = Transpose<perm = [2, 1, 0]>(x)", _X, _Y), ""),
)

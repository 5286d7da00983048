"""Cast(x: T, to T) => x, and Cast(Cast(x: A, to B), to C) => Cast(x, to C) where B holds every A.

Fires where the element types are known. The second law needs the first cast to lose nothing (float to double,
int32 to int64, ...), and the second to go back to A or to another type that holds every A: only then does the
way not matter for any bit, out-of-range values and infinities included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import is_op
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.forward import OUTER, integer_of, repeats

LOSES = "the first cast loses values"
ROUNDS = "the second cast rounds, and what lies out of range would take another way"

T = ir.DataType
_WHOLE = {
    T.BOOL: (0, 1),
    T.UINT8: (0, 8),
    T.INT8: (1, 7),
    T.UINT16: (0, 16),
    T.INT16: (1, 15),
    T.UINT32: (0, 32),
    T.INT32: (1, 31),
    T.UINT64: (0, 64),
    T.INT64: (1, 63),
}
"""Sign and magnitude bits."""
_FLOATING = {T.BFLOAT16: (8, 8), T.FLOAT16: (11, 5), T.FLOAT: (24, 8), T.DOUBLE: (53, 11)}
"""Significand bits (the hidden one counted) and exponent bits."""


@dataclass(frozen=True)
class Shortcut:
    """The cast `node` gives what `source` holds already, or what a cast of `source` would."""

    node: ir.Node
    source: ir.Value
    redundant: bool


@dataclass(frozen=True)
class DropCasts(Pass):
    """Remove casts that change no value, and skip the exact first half of a chain of two."""

    name: ClassVar[str] = "drop-casts"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> Shortcut | Reject | None:
        """A cast to the type its input has, or a cast of an exact cast."""
        source = node.inputs[0] if is_op(node, "Cast") and node.inputs else None
        target = integer_of(node, "to", 0)
        if source is None or source.dtype is None or not target:
            return None
        if source.dtype == target:
            return repeats(node, source) or Shortcut(node, source, redundant=True)
        first = source.producer()
        if not is_op(first, "Cast"):
            return None
        assert first is not None
        return _chain(node, first, source.dtype, T(target))

    def rewrite(self, found: Shortcut, edit: Edit) -> None:
        """Replace the output by the source, or cast from the source."""
        if found.redundant:
            edit.replace(found.node.outputs[0], found.source)
            edit.remove_unused(found.node)
            return
        skipped = found.node.inputs[0]
        edit.rewire(found.node, 0, found.source)
        producer = skipped.producer() if skipped is not None else None
        if producer is not None:
            edit.remove_unused(producer)

    @classmethod
    def examples(cls) -> Examples:
        """No-op casts and exact detours; rounding detours and casts that a graph output needs."""
        return evidence(_FIRES, _HOLDS)


def holds_every(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether each value of type `narrow` is a value of type `wide`."""
    if wide == narrow:
        return True
    if narrow in _WHOLE and wide in _WHOLE:
        return wide != T.BOOL and all(w >= n for w, n in zip(_WHOLE[wide], _WHOLE[narrow], strict=True))
    if narrow in _WHOLE and wide in _FLOATING:
        return _FLOATING[wide][0] >= _WHOLE[narrow][1]
    if narrow in _FLOATING and wide in _FLOATING:
        return all(w >= n for w, n in zip(_FLOATING[wide], _FLOATING[narrow], strict=True))
    return False


def _chain(
    node: ir.Node, first: ir.Node, middle: ir.DataType, target: ir.DataType
) -> Shortcut | Reject | None:
    origin = first.inputs[0]
    if origin is None or origin.dtype is None or first.graph is not node.graph:
        return None
    if not holds_every(middle, origin.dtype):
        return Reject(LOSES, label_of(node))
    if target == origin.dtype:
        stays = repeats(node, origin)
        return Shortcut(node, origin, redundant=stays is None)
    if holds_every(target, origin.dtype):
        return Shortcut(node, origin, redundant=False)
    return Reject(ROUNDS, label_of(node))


_FIRES = (
    graph("a = Relu(x)  b = Cast<to = 1>(a)  y = Tanh(b)", constants="float[N,4] a"),
    graph("a = Relu(x)  b = Cast<to = 11>(a)  y = Cast<to = 1>(b)", constants="float[N,4] a, double[N,4] b"),
    graph(
        "a = Cast<to = 7>(x)  b = Cast<to = 11>(a)  y = Neg(b)",
        "int32[N] x",
        "double[N] y",
        constants="int64[N] a, double[N] b",
    ),
    graph(
        "a = Cast<to = 1>(x)  y = Cast<to = 10>(a)", "float16[N] x", "float16[N] y", constants="float[N] a"
    ),
    graph(
        "a = Not(x)  b = Cast<to = 6>(a)  c = Cast<to = 9>(b)  y = Not(c)",
        "bool[N] x",
        "bool[N] y",
        constants="bool[N] a, int32[N] b, bool[N] c",
    ),
)
_HOLDS = (
    (graph("a = Cast<to = 10>(x)  y = Cast<to = 1>(a)", constants="float16[N,4] a"), LOSES),
    (
        graph("a = Cast<to = 11>(x)  y = Cast<to = 3>(a)", outputs="int8[N,4] y", constants="double[N,4] a"),
        ROUNDS,
    ),
    (graph("y = Cast<to = 1>(x)"), OUTER),
    (graph("y = Cast<to = 11>(x)", outputs="double[N,4] y"), ""),
)

"""Two initializers of one graph with the same type, shape and bytes => one.

The first in the graph's order stays. Initializers that callers may override (graph inputs as well) or that
are graph outputs keep themselves: their names are public. Bytes are compared, not numbers: -0.0 is not 0.0,
and a NaN is itself. Only initializers of the same type and shape are read, and those with unlike annotations
not even then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Contract, Examples, ModelPass
from onnxq.passes.clean.evidence import evidence, graph


@dataclass(frozen=True)
class ShareConstants(ModelPass):
    """Let the readers of equal initializers read the first of them."""

    name: ClassVar[str] = "share-constants"
    contract: ClassVar[Contract] = Contract.BITWISE

    def transform(self, model: ir.Model) -> ir.Model:
        """`model` itself with each constant once in a graph."""
        roots = (model.graph, *(function.graph for function in model.functions.values()))
        for part in (part for root in roots for part in (root, *root.subgraphs())):
            for kept, copy in _copies(part):
                copy.replace_all_uses_with(kept)
                del part.initializers[str(copy.name)]
        return model

    @classmethod
    def examples(cls) -> Examples:
        """Twins, triplets, twins in a branch; and those unlike in a bit, a type, a shape or a public name."""
        return evidence(_FIRES, _HOLDS)


def _copies(part: ir.Graph) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Each initializer that repeats an earlier one, with that one."""
    private = [value for value in part.initializers.values() if not _is_public(value)]
    by_look: dict[Hashable, list[ir.Value]] = {}
    for value in private:
        by_look.setdefault(_look(value), []).append(value)
    for alike in by_look.values():
        if len(alike) == 1:
            continue
        first: dict[bytes, ir.Value] = {}
        for value in alike:
            kept = first.setdefault(_digest(value), value)
            if kept is not value:
                yield kept, value


def _is_public(value: ir.Value) -> bool:
    tensor = value.const_value
    return value.is_graph_input() or value.is_graph_output() or tensor is None or tensor.dtype.is_string()


def _look(value: ir.Value) -> Hashable:
    """What is cheap to compare: equal for equal initializers."""
    tensor = value.const_value
    assert tensor is not None
    annotations = sorted(value.metadata_props.items()), sorted(value.meta.items()), value.doc_string
    return tensor.dtype, tuple(tensor.shape), repr(annotations)


def _digest(value: ir.Value) -> bytes:
    tensor = value.const_value
    assert tensor is not None
    return hashlib.sha256(tensor.tobytes()).digest()


_TWO = "float[4] v = {1, 2, 3, 4}, float[4] w = {1, 2, 3, 4}"
_SUM = "a = Mul(x, v)  y = Add(a, w)"
_FIRES = (
    graph(_SUM, constants=_TWO),
    graph(f"{_SUM}  z = Mul(y, u)", outputs="float[N,4] z", constants=f"{_TWO}, float[4] u = {{1, 2, 3, 4}}"),
    graph(
        """y = If(c) <then_branch = t () => (float[N,4] p)
                      <float[4] v = {1, 2, 3, 4}, float[4] w = {1, 2, 3, 4}>
                      { a = Mul(x, v)  p = Add(a, w) },
                      else_branch = e () => (float[N,4] q) { q = Tanh(x) }>""",
        "float[N,4] x, bool[1] c",
    ),
)
_HOLDS = (
    (graph(_SUM, constants="float[4] v = {1, 2, 3, 4}, float[4] w = {1, 2, 3, 5}"), ""),
    (graph(_SUM, constants="float[4] v = {0, 2, 3, 4}, float[4] w = {-0.0, 2, 3, 4}"), ""),
    (graph(_SUM, constants="float[4] v = {1, 2, 3, 4}, float[1,4] w = {1, 2, 3, 4}"), ""),
    (graph(_SUM, "float[N,4] x, float[4] w = {1, 2, 3, 4}", constants="float[4] v = {1, 2, 3, 4}"), ""),
    (
        graph(
            "a = Gather(x, i)  b = Cast<to = 1>(j)  y = Mul(a, b)",
            outputs="float[A,B] y",
            constants="int64[1] i = {1}, int32[1] j = {1}",
        ),
        "",
    ),
)

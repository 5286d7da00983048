"""x / sqrt(mean(x²) + ε) * γ, spelled out => RMSNormalization(x, γ).

Fires on every spelling that `find_norm` knows, over the last axis, with γ constant or absent; needs opset 23,
the first with the operator. Norms in double stay: the operator computes in float. A norm followed by a
constant shift keeps the Add, for the operator has no place for it.

The operator takes the sum in another order than the nodes, so the last bits differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.recompose import DOUBLE, SpelledNorm, match_norm, replace_norm


@dataclass(frozen=True)
class RecomposeRMSNorm(Pass):
    """Give a spelled-out RMS norm its operator back."""

    name: ClassVar[str] = "recompose-rms-norm"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> SpelledNorm | Reject | None:
        """The norm whose last node is `node`."""
        return match_norm(node, context, "rms", "RMSNormalization", 23)

    def rewrite(self, found: SpelledNorm, edit: Edit) -> None:
        """Put the operator in the place of the nodes."""
        replace_norm(found, edit, "RMSNormalization")

    @classmethod
    def examples(cls) -> Examples:
        """Division, reciprocal, with and without a scale; old operator sets, double, other axes."""
        return evidence(_FIRES, _HOLDS)


_CONSTANTS = "float two = {2}, float e = {0.00001}, float[4] g = {1, 2, 0.5, -1}, int64[1] last = {-1}"
_ROOT = "q = Pow(x, two)  v = ReduceMean(q, last)  s = Add(v, e)  r = Sqrt(s)"
_FIRES = (
    graph(f"{_ROOT}  n = Div(x, r)  y = Mul(g, n)", opset=23, constants=_CONSTANTS),
    graph(f"{_ROOT}  i = Reciprocal(r)  n = Mul(x, i)  y = Mul(n, g)", opset=23, constants=_CONSTANTS),
    graph(
        "q = Mul(x, x)  v = ReduceMean(q, last)  s = Add(v, e)  r = Sqrt(s)  y = Div(x, r)",
        opset=23,
        constants=_CONSTANTS,
    ),
)
_HOLDS = (
    (
        graph(f"{_ROOT}  n = Div(x, r)  y = Mul(g, n)", opset=18, constants=_CONSTANTS),
        "opset 18 has no RMSNormalization",
    ),
    (
        graph(
            f"{_ROOT}  n = Div(x, r)  y = Mul(g, n)",
            "double[N,4] x",
            "double[N,4] y",
            opset=23,
            constants=_CONSTANTS.replace("float", "double"),
        ),
        DOUBLE,
    ),
    (
        graph(
            f"{_ROOT}  n = Div(x, r)  y = Mul(g, n)",
            opset=23,
            constants=_CONSTANTS.replace("{-1}", "{0}"),
        ),
        "not over the last axis",
    ),
    (graph("y = Mul(x, g)", opset=23, constants=_CONSTANTS), ""),
)

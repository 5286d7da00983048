"""(x - mean(x)) / sqrt(mean((x - mean(x))²) + ε) * γ + β, spelled out => LayerNormalization(x, γ, β).

Exporters that write operator sets below 17 spell the norm out in nine nodes or more. Fires on every spelling
that `find_norm` knows, over the last axis, with γ and β constant or absent; needs opset 17. Norms in double
stay: the operator computes in float. Nodes in the middle that somebody else reads stay as well, beside the
operator.

The operator takes sums in another order than the nodes, so the last bits differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.recompose import DOUBLE, PRECISION, SpelledNorm, match_norm, replace_norm


@dataclass(frozen=True)
class RecomposeLayerNorm(Pass):
    """Give a spelled-out layer norm its operator back."""

    name: ClassVar[str] = "recompose-layer-norm"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> SpelledNorm | Reject | None:
        """The norm whose last node is `node`."""
        return match_norm(node, context, "layer", "LayerNormalization", 17)

    def rewrite(self, found: SpelledNorm, edit: Edit) -> None:
        """Put the operator in the place of the nodes."""
        replace_norm(found, edit, "LayerNormalization")

    @classmethod
    def examples(cls) -> Examples:
        """Spellings of both exporters and others; old operator sets, other axes, other precisions."""
        return evidence(_FIRES, _HOLDS)


_VECTORS = "float[4] g = {1, 2, 0.5, -1}, float[4] b = {0, 1, 2, 3}"
_HALVES = "float16[4] g = {15360, 16384, 14336, 15360}, float16[4] b = {0, 15360, 16384, 0}"
"""As bits, which is how the text form has them: scale 1, 2, 0.5, 1 and shift 0, 1, 2, 0."""
_SCALARS = "float two = {2}, float e = {0.00001}"
_CENTRE = "m = ReduceMean<axes = [-1]>(x)  d = Sub(x, m)"
_ROOT = "q = Pow(d, two)  v = ReduceMean<axes = [-1]>(q)  s = Add(v, e)  r = Sqrt(s)"
_ALL = f"{_SCALARS}, {_VECTORS}"
_FIRES = (
    graph(f"{_CENTRE}  {_ROOT}  n = Div(d, r)  h = Mul(n, g)  y = Add(h, b)", constants=_ALL),
    graph(
        f"{_CENTRE}  {_ROOT}  i = Reciprocal(r)  n = Mul(d, i)  h = Mul(g, n)  y = Add(b, h)", constants=_ALL
    ),
    graph(
        f"{_CENTRE}  q = Mul(d, d)  v = ReduceMean<axes = [1]>(q)  s = Add(e, v)  r = Sqrt(s)  n = Div(d, r)"
        "  y = Mul(n, g)",
        constants=_ALL,
    ),
    graph(f"{_CENTRE}  {_ROOT}  n = Div(d, r)  h = Mul(n, g)  a = Add(h, b)  y = Add(a, r)", constants=_ALL),
    graph(
        """m = ReduceMean<axes = [-1]>(x)  d = Sub(x, m)  c = Cast<to = 1>(d)  q = Pow(c, two)
           v = ReduceMean<axes = [-1]>(q)  s = Add(v, e)  r = Sqrt(s)  n = Div(d, r)
           h = Mul(n, g)  y = Add(h, b)""",
        constants=f"{_ALL}, float[N,4] d, float[N,4] c, float[N,4] h",
    ),
)
_HOLDS = (
    (
        graph(f"{_CENTRE}  {_ROOT}  n = Div(d, r)  h = Mul(n, g)  y = Add(h, b)", constants=_ALL, opset=14),
        "opset 14 has no LayerNormalization",
    ),
    (
        graph(
            """m = ReduceMean<axes = [1]>(x)  d = Sub(x, m)  q = Pow(d, two)  v = ReduceMean<axes = [1]>(q)
               s = Add(v, e)  r = Sqrt(s)  n = Div(d, r)  h = Mul(n, g)  y = Add(h, b)""",
            "float[N,3,4] x",
            "float[N,3,4] y",
            constants=_ALL,
        ),
        "not over the last axis",
    ),
    (
        graph(
            f"{_CENTRE}  {_ROOT}  n = Div(d, r)  h = Mul(n, g)  y = Add(h, b)",
            "double[N,4] x",
            "double[N,4] y",
            constants=_ALL.replace("float", "double"),
        ),
        DOUBLE,
    ),
    (
        graph(
            f"{_CENTRE}  {_ROOT}  n = Div(d, r)  k = Cast<to = 10>(n)  h = Mul(k, g)  y = Add(h, b)",
            outputs="float16[N,4] y",
            constants=f"{_SCALARS}, {_HALVES}, float[N,4] n",
        ),
        PRECISION,
    ),
    (graph("y = LayerNormalization(x, g, b)", constants=_VECTORS), ""),
)

"""x Φ(x) with Erf, or its tanh approximation, spelled out => Gelu(x).

Fires on every spelling that `find_gelu` knows to compute one of the two; needs opset 20, the first with the
operator. Other sigmoid approximations are not Gelu and stay. Nodes in the middle that somebody else reads
stay as well.

The operator multiplies in another order than the nodes, so the last bits differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.activation import Activation, find_gelu
from onnxq.ir.walk import is_op
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.recompose import PRECISION, substitute, too_old

_APPROXIMATE = {"gelu-erf": None, "gelu-tanh": "tanh"}


@dataclass(frozen=True)
class RecomposeGelu(Pass):
    """Give a spelled-out Gelu its operator back."""

    name: ClassVar[str] = "recompose-gelu"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> Activation | Reject | None:
        """The Gelu whose last node is `node`."""
        found = find_gelu(node) if is_op(node, "Mul", "Div") else None
        if found is None or found.kind not in _APPROXIMATE:
            return None
        if found.input.dtype != found.output.dtype and None not in (found.input.dtype, found.output.dtype):
            return Reject(PRECISION, label_of(node))
        return too_old(node, context, "Gelu", 20) or found

    def rewrite(self, found: Activation, edit: Edit) -> None:
        """Put the operator in the place of the nodes."""
        attributes = {"approximate": _APPROXIMATE[found.kind]}
        substitute(found.nodes, "Gelu", [found.input], attributes, edit)

    @classmethod
    def examples(cls) -> Examples:
        """Both formulas in several orders; old operator sets, wrong numbers, other activations."""
        return evidence(_FIRES, _HOLDS)


_ERF = "float root = {1.4142135}, float one = {1}, float half = {0.5}"
_TANH = "float c = {0.044715}, float k = {0.7978846}, float three = {3}, float one = {1}, float half = {0.5}"
_INNER = "d = Div(x, root)  f = Erf(d)  a = Add(f, one)"
_FIRES = (
    graph(f"{_INNER}  m = Mul(x, a)  y = Mul(m, half)", opset=20, constants=_ERF),
    graph(f"h = Mul(half, x)  {_INNER}  y = Mul(h, a)", opset=20, constants=_ERF),
    graph(
        """p = Pow(x, three)  q = Mul(p, c)  s = Add(x, q)  t = Mul(s, k)  u = Tanh(t)  a = Add(one, u)
           h = Mul(x, half)  y = Mul(h, a)""",
        opset=20,
        constants=_TANH,
    ),
)
_HOLDS = (
    (graph(f"{_INNER}  m = Mul(x, a)  y = Mul(m, half)", constants=_ERF), "opset 17 has no Gelu"),
    (
        graph(f"{_INNER}  m = Mul(x, a)  y = Mul(m, half)", opset=20, constants=_ERF.replace("1.41", "1.31")),
        "",
    ),
    (graph("s = Sigmoid(x)  y = Mul(x, s)", opset=20), ""),
    (graph("y = Gelu(x)", opset=20), ""),
)

"""Identity(x) => x.

Fires on every Identity of the default operator set, also in subgraphs and functions. An Identity that gives a
graph its output lends its name to the value it repeats, so that the interface stays as it was. One that hands
a graph input, an initializer or an outer value out of a graph is not redundant: ONNX wants a node there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.walk import is_op
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.forward import OUTER, repeats


@dataclass(frozen=True)
class DropIdentity(Pass):
    """Let the readers of an Identity read its input."""

    name: ClassVar[str] = "drop-identity"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> ir.Node | Reject | None:
        """The Identity itself."""
        if not is_op(node, "Identity") or len(node.inputs) != 1 or node.inputs[0] is None:
            return None
        return repeats(node, node.inputs[0]) or node

    def rewrite(self, found: ir.Node, edit: Edit) -> None:
        """Replace the output by the input."""
        source = found.inputs[0]
        assert source is not None
        edit.replace(found.outputs[0], source)
        edit.remove_unused(found)

    @classmethod
    def examples(cls) -> Examples:
        """Between nodes, of an initializer, at an output; and the copies that must stay."""
        return evidence(_FIRES, _HOLDS)


_FIRES = (
    graph("a = Relu(x)  b = Identity(a)  y = Tanh(b)"),
    graph("a = Relu(x)  y = Identity(a)"),
    graph("v = Identity(w)  a = Mul(x, v)  y = Add(a, w)", constants="float[4] w = {1, 2, 3, 4}"),
    graph(
        """y = If(c) <then_branch = t () => (float[N,4] p) { a = Identity(x)  p = Relu(a) },
                      else_branch = e () => (float[N,4] q) { q = Tanh(x) }>""",
        "float[N,4] x, bool[1] c",
    ),
    graph("y = own.f(x)", function="f (a) => (b) { c = Identity(a)  b = Relu(c) }"),
)
_HOLDS = (
    (graph("y = Identity(x)"), OUTER),
    (graph("y = Relu(x)  z = Identity(y)", outputs="float[N,4] y, float[N,4] z"), OUTER),
    (
        graph(
            """y = If(c) <then_branch = t () => (float[N,4] p) { p = Identity(x) },
                          else_branch = e () => (float[N,4] q) { q = Tanh(x) }>""",
            "float[N,4] x, bool[1] c",
        ),
        OUTER,
    ),
    (graph("y = own.f(x)", function="f (a) => (b) { b = Identity(a) }"), OUTER),
    (graph("y = Relu(x)"), ""),
)

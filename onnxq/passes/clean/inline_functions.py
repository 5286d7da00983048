"""A call of a function of the model => the nodes of its body.

A function's weights come in by its inputs, so that inside it no product has a constant weight, and no norm a
constant scale: what exporters write as functions would stay as it is. The nodes of a body are named behind
the function. A function of a domain in which runtimes have operators of their own stays, since the call may
mean such an operator.

The inliner is that of onnx-ir.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Contract, Examples, ModelPass
from onnxq.errors import UnsupportedModel
from onnxq.names import Names
from onnxq.passes.clean.evidence import evidence, graph

_OPERATORS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains whose names runtimes take for operators."""


@dataclass(frozen=True)
class InlineFunctions(ModelPass):
    """Put the nodes of functions where these are called."""

    name: ClassVar[str] = "inline-functions"
    contract: ClassVar[Contract] = Contract.BITWISE

    def transform(self, model: ir.Model) -> ir.Model:
        """`model` itself, without functions but those that have to stay.

        Raises:
            UnsupportedModel: A body cannot be put into the graph ("inlining"); `model` is then half way.
        """
        from onnx_ir.passes.common import InlinePass

        if not any(map(_may_go, model.functions.values())):
            return model
        _tell_apart(model)
        try:
            InlinePass(criteria=_may_go)(model)
        except ValueError as reason:
            raise UnsupportedModel(
                str(reason),
                hint="Functions stay, and what is inside them stays as it is.",
                slug="inlining",
            ) from None
        for name in [name for name, function in model.functions.items() if _may_go(function)]:
            del model.functions[name]  # nobody calls it
        return model

    @classmethod
    def examples(cls) -> Examples:
        """Functions called once, twice, from each other, in branches; those of another operator set."""
        return evidence(_FIRES, _HOLDS)


def _may_go(function: ir.Function) -> bool:
    return function.domain not in _OPERATORS


def _tell_apart(model: ir.Model) -> None:
    """Name what functions hold behind them, unlike everything else in the model.

    Inputs of loops as well: one named as a value outside would hide that value from the body of the loop.
    """
    names = Names(model)
    for function in filter(_may_go, model.functions.values()):
        values = [value for part in function.subgraphs() for value in _given_to(part)]
        for node in function.all_nodes():
            node.name = names.take(f"{function.name}/{node.name or node.op_type}")
            values += node.outputs
        for value in values:
            value.name = names.take(f"{function.name}/{value.name}") if value.name else value.name


def _given_to(part: ir.Graph) -> list[ir.Value]:
    """Its inputs and initializers, once each."""
    return list(dict.fromkeys((*part.inputs, *part.initializers.values())))


_LINEAR = "f (a, w) => (b) { m = MatMul(a, w)  b = Relu(m) }"
_W = "float[4,4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2}"
_OWN = '<domain: "own", opset_import: ["" : 17, "own" : 1]>'
_FIRES = (
    graph("y = own.f(x, w)", constants=_W, function=_LINEAR),
    graph("m = own.f(x, w)  y = own.f(m, w)", constants=_W, function=_LINEAR),
    graph(
        "y = own.twice(x, w)",
        constants=_W,
        function=f"{_LINEAR} {_OWN} twice (a, w) => (b) {{ m = own.f(a, w)  b = own.f(m, w) }}",
    ),
    graph("y = own.f <axis = 1> (x)", function="f <axis> (a) => (b) { b = Softmax <axis: int = @axis> (a) }"),
    graph("y = own.f(x)", function="f (a, lo) => (b) { b = Clip(a, lo) }"),
    graph(
        """y = If(c) <then_branch = t () => (float[N,4] m) { m = own.f(x, w) },
                      else_branch = e () => (float[N,4] q) { q = Tanh(x) }>""",
        "float[N,4] x, bool[1] c",
        constants=_W,
        function=_LINEAR,
    ),
    graph(
        "p = own.f(x, c)  y = own.f(p, c)",
        "float[N,4] x, bool[1] c",
        function="""f (a, c) => (b) { b = If(c) <then_branch = t () => (p) { m = Neg(a)  p = Relu(m) },
                                               else_branch = e () => (q) { q = Tanh(a) }> }""",
    ),
)
_HOLDS = (
    (
        graph("y = own.f(x)", function="f (a) => (b) { b = Relu(a) }").replace(
            '["" : 17]> f', '["" : 16]> f'
        ),
        "Opset mismatch",
    ),
    (graph("y = Relu(x)"), ""),
    (
        graph("y = own.Gelu(x)", function="Gelu (a) => (b) { b = Tanh(a) }").replace("own", "com.microsoft"),
        "",
    ),
)

"""Nodes, initializers and functions that no output depends on => nothing.

ONNX operators have no effect but their outputs, so that what nobody reads need not run. Inputs of the model
stay even if nothing reads them, and so do initializers that are inputs as well: callers name them. Imported
operator sets stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Contract, Edit, Examples, ModelPass
from onnxq.passes.clean.evidence import evidence, graph


@dataclass(frozen=True)
class DropUnused(ModelPass):
    """Remove what does not reach an output, inside subgraphs and functions too."""

    name: ClassVar[str] = "drop-unused"
    contract: ClassVar[Contract] = Contract.BITWISE

    def transform(self, model: ir.Model) -> ir.Model:
        """`model` itself without its dead parts."""
        from onnx_ir.passes.common import RemoveUnusedFunctionsPass

        edit = Edit(model, self.name)
        for root in (model.graph, *(function.graph for function in model.functions.values())):
            _drop_nodes(root, edit)
            _drop_initializers(root)
            for part in root.subgraphs():
                _drop_initializers(part)
        RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        return model

    @classmethod
    def examples(cls) -> Examples:
        """Dead chains, weights, functions, branches' insides; and what only looks unused."""
        return evidence(_FIRES, _HOLDS)


def _drop_nodes(part: ir.Graph, edit: Edit) -> None:
    for node in reversed(list(part)):
        if node.graph is None:
            continue
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            edit.remove_unused(node)
            continue
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                _drop_nodes(attribute.as_graph(), edit)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    _drop_nodes(inner, edit)


def _drop_initializers(part: ir.Graph) -> None:
    for name, value in list(part.initializers.items()):
        if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
            del part.initializers[name]


_W = "float[4] w = {1, 2, 3, 4}"
_FIRES = (
    graph("a = Relu(x)  b = Tanh(a)  y = Neg(x)"),
    graph("y = Neg(x)", constants=_W),
    graph("y = Neg(x)", function="f (a) => (b) { b = Relu(a) }"),
    graph("y = own.f(x)", function="f (a) => (b) { c = Tanh(a)  b = Relu(a) }"),
    graph(
        """y = If(c) <then_branch = t () => (float[N,4] p) { a = Add(x, w)  p = Relu(x) },
                      else_branch = e () => (float[N,4] q) { q = Tanh(x) }>""",
        "float[N,4] x, bool[1] c",
        constants=_W,
    ),
    graph(
        """a = If(c) <then_branch = t () => (float[N,4] p) { p = Add(x, w) },
                      else_branch = e () => (float[N,4] q) { q = Tanh(x) }>
           y = Neg(x)""",
        "float[N,4] x, bool[1] c",
        constants=_W,
    ),
)
_HOLDS = (
    (graph("y = Neg(x)", "float[N,4] x, float[4] unread"), ""),
    (graph("y = Neg(x)", "float[N,4] x, float[4] w = {1, 2, 3, 4}"), ""),
    (graph("y, k = TopK(x, one)", outputs="float[N,M] y, int64[N,M] k", constants="int64[1] one = {1}"), ""),
    (graph("y, k = TopK(x, one)", outputs="float[N,M] y", constants="int64[1] one = {1}"), ""),
    (
        graph(
            """y = If(c) <then_branch = t () => (float[N,4] p) { p = Add(x, w) },
                          else_branch = e () => (float[N,4] q) { q = Tanh(x) }>""",
            "float[N,4] x, bool[1] c",
            constants=_W,
        ),
        "",
    ),
)

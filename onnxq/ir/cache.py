"""Caches of keys and values: what a language model is given of earlier calls and hands on to the next.

    present = concat(past, new) over the positions;   past is an input of the graph, present an output

as nodes, or inside an attention operator that takes and gives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.edit import label_of
from onnxq.ir.walk import attribute, input_of, is_op, last_dim, rank_of

_STEP_LIMIT = 24
_OPERATORS = {"GroupQueryAttention": ((3, 1), (4, 2)), "MultiHeadAttention": ((6, 1), (7, 2))}
"""Contrib operators with a cache: pairs of the input that is the past and the output that is the present."""
_STANDARD = ((4, 1), (5, 2))
"""The same of the Attention operator of opset 23."""


@dataclass(frozen=True, eq=False)
class Cached:
    """Keys or values of one layer.

    Attributes:
        past: The graph input, [B, heads, past, size].
        present: The graph output, [B, heads, past + new, size].
        new: What this call adds; None where an operator computes it inside.
        node: The Concat, or the operator.
        heads: How many heads; None if unknown.
        size: Channels of one head; None if unknown.
    """

    past: ir.Value
    present: ir.Value
    new: ir.Value | None
    node: ir.Node
    heads: int | None
    size: int | None


def find_cached(node: ir.Node) -> Iterator[Cached | Reject]:
    """Caches that go through `node`: one of a Concat, two of an attention operator."""
    if is_op(node, "Concat"):
        found = _joined(node)
        if found is not None:
            yield found
        return
    known = _OPERATORS.get(node.op_type, ()) if node.domain == "com.microsoft" else ()
    for before, after in _STANDARD if is_op(node, "Attention") else known:
        past = _input_behind(input_of(node, before))
        if past is not None and after < len(node.outputs):
            yield _cached(past, node.outputs[after], None, node)


def _joined(node: ir.Node) -> Cached | Reject | None:
    if len(node.inputs) != 2:
        return None
    past = _input_behind(node.inputs[0])
    if past is None or rank_of(past) != 4:
        return None
    if attribute(node, "axis", 0) not in (2, -2):
        return Reject("what came before is not joined over positions", label_of(node))
    if not node.outputs[0].is_graph_output():
        return Reject("past and new together are no output of the graph", label_of(node))
    return _cached(past, node.outputs[0], node.inputs[1], node)


def _cached(past: ir.Value, present: ir.Value, new: ir.Value | None, node: ir.Node) -> Cached:
    heads = past.shape[1] if past.shape is not None and len(past.shape) == 4 else None
    return Cached(past, present, new, node, heads if isinstance(heads, int) else None, last_dim(past))


def _input_behind(value: ir.Value | None) -> ir.Value | None:
    """The graph input that `value` is, or is a copy of: TorchScript joins the past with nothing first."""
    for _ in range(_STEP_LIMIT):
        node = value.producer() if value is not None else None
        if value is None or node is None:
            break
        if not is_op(node, "Identity") and not (is_op(node, "Concat") and len(node.inputs) == 1):
            return None
        value = node.inputs[0]
    return value if value is not None and value.is_graph_input() and not value.is_initializer() else None

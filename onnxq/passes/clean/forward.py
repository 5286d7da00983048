"""When the output of a node may give way to the value it repeats; attributes read without surprises."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.edit import label_of

OUTER = "the graph's output would be its input, a constant or a value of an outer graph"


def repeats(node: ir.Node, source: ir.Value) -> Reject | None:
    """Why output 0 of `node` must stay although it equals `source`; None if `source` can take its place.

    An output of a graph needs a node of that same graph that produces it, and can carry only one name.
    """
    output = node.outputs[0]
    if not output.is_graph_output():
        return None
    producer = source.producer()
    if producer is None or producer.graph is not node.graph or source.is_graph_output():
        return Reject(OUTER, label_of(node))
    return None


def integers_of(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """Attribute `name` of `node` as integers; None if absent, or bound to a function's parameter."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.INTS:
        return None
    return tuple(attribute.as_ints())


def integer_of(node: ir.Node, name: str, default: int) -> int | None:
    """Attribute `name` of `node`, `default` if absent, None if bound to a function's parameter."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    if attribute.is_ref() or attribute.type != ir.AttributeType.INT:
        return None
    return int(attribute.as_int())

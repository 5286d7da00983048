"""From the operands of an attention product up to the linear layers they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.ir.channels import reshape_end
from onnxq.ir.flow import through_casts
from onnxq.ir.linear import Linear, linear_giving
from onnxq.ir.norm import Norm, find_norm, norm_giving
from onnxq.ir.walk import is_op, last_dim, producer, root_of, scalar_of

_SEARCH_LIMIT = 200
_FIRST_INPUT = frozenset(
    {
        "Cast",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Neg",
        "Pad",
        "Reshape",
        "RotaryEmbedding",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_ALL_INPUTS = frozenset({"Add", "Concat", "Div", "Mul", "Sub", "Where"})
_COMPUTED_FACTORS = ("Sqrt", "Div", "Reciprocal", "Pow")


@dataclass(frozen=True)
class Heads:
    """How the channels of an attention are divided.

    Attributes:
        queries: Heads of the queries.
        keys: Heads of keys and values: fewer where several query heads share one.
        size: Channels of one head.
    """

    queries: int
    keys: int
    size: int


@dataclass
class Origin:
    """Where queries, keys or values come from.

    Attributes:
        linears: The linear layers found, by node: one, for anything that can be rewritten.
        nodes: The nodes between.
        scale: The product of the constant factors on the way; None if a factor is computed.
        is_cached: Whether a graph input is put in front of the computed part.
    """

    linears: dict[ir.Node, Linear] = field(default_factory=dict)
    nodes: dict[ir.Node, None] = field(default_factory=dict)
    scale: float | None = 1.0
    is_cached: bool = False

    @property
    def count(self) -> int:
        """How many linear layers were found."""
        return len(self.linears)

    @property
    def linear(self) -> Linear | None:
        """The linear layer, if it is exactly one."""
        return next(iter(self.linears.values())) if self.count == 1 else None

    @property
    def is_rotary(self) -> bool:
        """Whether positions turn the channels: the operator, or halves swapped, one negated, and joined."""
        names = {node.op_type for node in self.nodes}
        return "RotaryEmbedding" in names or ("Concat" in names and not names.isdisjoint({"Neg", "Sub"}))


def trace_origin(value: ir.Value) -> Origin:
    """Follow an operand of an attention product up to linear layers.

    Passes what splits, joins, repeats and rearranges heads, factors, rotary positions, norms of queries and
    keys, and caches. Only data is followed: not the shape that a Reshape computes, not the angles that a
    product reads.
    """
    origin = Origin()
    pending = [value]
    while pending and len(origin.nodes) < _SEARCH_LIMIT:
        current = pending.pop(0)
        linear = linear_giving(current)
        node = current.producer()
        if linear is not None:
            origin.linears[linear.node] = linear
        elif node is not None and node not in origin.nodes:
            pending += _data_inputs(node, origin)
    return origin


def head_sizes(operand: ir.Value, origin: Origin, scale: float | None) -> list[int]:
    """Guesses at the channels of one head, best first.

    The last axis of the operand itself, where its shape is known; the inverse square of the usual scale;
    the last axis of what a Reshape splits, which may still hold queries, keys and values together.
    """
    known = last_dim(operand)
    if known is not None and len(operand.shape or ()) == 4:
        return [known]
    usual = round(scale**-2) if scale else 0
    sure = [usual] if scale and usual > 1 and math.isclose(usual, scale**-2, rel_tol=1e-3) else []
    ends = [reshape_end(node) for node in origin.nodes if is_op(node, "Reshape")]
    return sure + [sizes[-1] for sizes in ends if len(sizes) > 2 and sizes[-1]]


def count_heads(query: Linear, key: Linear, output: Linear | None, sizes: list[int]) -> Heads | None:
    """Heads of queries and of keys by the widths of the layers, with the first size that fits all of them."""
    fused = query.node is key.node
    if not fused:
        widths = (query.columns, key.columns)
    else:
        width = output.channels if output is not None else query.columns // 3
        widths = (width, (query.columns - width) // 2)
    for size in sizes:
        if min(widths) > 0 and not any(width % size for width in widths):
            return Heads(widths[0] // size, widths[1] // size, size)
    return None


def _data_inputs(node: ir.Node, origin: Origin) -> list[ir.Value]:
    """The inputs to follow, with the node noted in `origin`; none where the way ends."""
    norm = find_norm(node)
    if isinstance(norm, Norm):
        origin.nodes[node] = None
        return [norm.input]
    if node.op_type in _FIRST_INPUT and (is_op(node, node.op_type) or node.op_type == "RotaryEmbedding"):
        origin.nodes[node] = None
        return [value for value in node.inputs[:1] if value is not None]
    if not is_op(node, *_ALL_INPUTS):
        return []
    origin.nodes[node] = None
    if node.op_type in ("Mul", "Div"):
        _note_factor(node, origin)
    followed = [value for value in node.inputs if value is not None and root_of(value) is None]
    if node.op_type == "Concat":
        origin.is_cached = origin.is_cached or any(value.is_graph_input() for value in followed)
    return followed


def _note_factor(node: ir.Node, origin: Origin) -> None:
    """Multiply a constant factor into the scale, or note that one is computed."""
    for value in node.inputs:
        scalar = scalar_of(value)
        if scalar is not None and origin.scale is not None:
            origin.scale *= 1 / scalar[0] if node.op_type == "Div" else scalar[0]
        elif _is_computed_factor(value):
            origin.scale = None


def _is_computed_factor(value: ir.Value | None) -> bool:
    """Whether `value` is a root or quotient, as a scale made of a Shape is, and no normalised value."""
    made = through_casts(value) if value is not None else None
    return made is not None and producer(made, *_COMPUTED_FACTORS) is not None and norm_giving(made) is None

"""Attention blocks: ``softmax(q kᵀ · scale + mask) v`` with the linear layers around it.

The block is found from its Softmax (or the Attention operator of opset 23). From there the product of
queries and keys lies above, the product with the values below; each of the three is followed up, through
splitting into heads, scaling, rotary positions, norms, repetition of grouped heads and caches, to the
linear layer it comes from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.ir.flow import source_of
from onnxq.ir.heads import Heads, Origin, count_heads, head_sizes, trace_origin
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import attribute, input_of, is_op, producer, rank_of, root_of, scalar_of

_FUSED = frozenset(
    {
        "Attention",
        "DecoderMaskedMultiHeadAttention",
        "GroupQueryAttention",
        "MultiHeadAttention",
        "PackedAttention",
        "PackedMultiHeadAttention",
        "QAttention",
        "SparseAttention",
    }
)
_STEP_LIMIT = 16
_BEHIND_SOFTMAX = ("Cast", "Identity", "Dropout", "Where", "Reshape", "Mul")
_BEHIND_PRODUCT = ("Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Flatten", "Dropout")


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """An attention block.

    Attributes:
        node: The Softmax, or the Attention operator.
        query: The linear layer that gives the queries.
        key: The one that gives the keys; the same node as `query` where one layer gives all three.
        value: The one that gives the values.
        output: The linear layer that reads the heads' merged results, if there is one.
        context: The result for each head, before the heads are merged.
        masks: What is added to the scores, nearest to the softmax first.
        scale: The factor on the scores, wherever it is applied (for small scores, if they are soft-capped
            by a Tanh); None if it is computed at run time.
        heads: How many heads there are, and of what size, if known.
        is_rotary: Whether queries and keys are turned by their positions.
        is_cross: Whether keys come from another sequence than queries.
        is_cached: Whether keys of earlier calls are put in front.
        scores: The node that multiplies queries by keys; the Attention operator itself, if it is one.
        weighted: The node that multiplies the softmax by the values; the same for the operator.
    """

    node: ir.Node
    query: Linear
    key: Linear
    value: Linear
    output: Linear | None
    context: ir.Value
    masks: tuple[ir.Value, ...]
    scale: float | None
    heads: Heads | None
    is_rotary: bool
    is_cross: bool
    is_cached: bool
    scores: ir.Node
    weighted: ir.Node


@dataclass(frozen=True)
class _Scores:
    """What lies between a softmax and the product of queries and keys."""

    product: ir.Node
    masks: tuple[ir.Value, ...]
    scale: float | None


def find_attention(node: ir.Node) -> AttentionBlock | Reject | None:
    """The attention block around the Softmax or Attention operator `node`.

    Returns:
        The block; a `Reject` for one that is fused already or whose queries, keys or values come from no
        linear layer; None for any other node, including the Softmax of a classifier.
    """
    if node.domain == "com.microsoft" and node.op_type in _FUSED:
        return Reject("the attention is fused already", node.name or "")
    if is_op(node, "Attention"):
        return _operator(node)
    if not is_op(node, "Softmax") or not _over_last_axis(node):
        return None
    above = _scores_above(node.inputs[0])
    weighted = _product_below(node.outputs[0])
    if above is None or weighted is None:
        return None
    query, key = above.product.inputs
    value = weighted.inputs[1]
    if query is None or key is None or value is None:
        return None
    return _block(node, (query, key, value), above, weighted)


def _operator(node: ir.Node) -> AttentionBlock | Reject | None:
    query, key, value = (input_of(node, index) for index in (0, 1, 2))
    if query is None or key is None or value is None:
        return None
    mask, given = input_of(node, 3), node.attributes.get("scale")
    scale = given.as_float() if given is not None and not given.is_ref() else None
    above = _Scores(node, () if mask is None else (mask,), scale)
    return _block(node, (query, key, value), above, node)


def _block(
    node: ir.Node, products: tuple[ir.Value, ir.Value, ir.Value], above: _Scores, weighted: ir.Node
) -> AttentionBlock | Reject:
    origins = tuple(trace_origin(value) for value in products)
    for origin, what in zip(origins, ("queries", "keys", "values"), strict=True):
        if origin.linear is None:
            return Reject(
                f"the {what} come from {origin.count or 'no'} linear layers, not 1", node.name or ""
            )
    query, key, value = (origin.linear for origin in origins if origin.linear is not None)
    output = _linear_below(weighted.outputs[0])
    scale = _total_scale(above, origins, is_operator=weighted is node)
    heads = count_heads(query, key, output, head_sizes(products[0], origins[0], scale))
    if scale is None and weighted is node and heads is not None:
        scale = 1 / math.sqrt(heads.size)  # the operator's default
    return AttentionBlock(
        node=node,
        query=query,
        key=key,
        value=value,
        output=output,
        context=weighted.outputs[0],
        masks=above.masks,
        scale=scale,
        heads=heads,
        is_rotary=origins[0].is_rotary and origins[1].is_rotary,
        is_cross=source_of(query.activation) is not source_of(key.activation),
        is_cached=origins[1].is_cached,
        scores=above.product,
        weighted=weighted,
    )


def _total_scale(above: _Scores, origins: tuple[Origin, ...], *, is_operator: bool) -> float | None:
    """The factor on the scores; the operator's own is all that an operator reports."""
    factors = [above.scale, *(() if is_operator else (origins[0].scale, origins[1].scale))]
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def _over_last_axis(node: ir.Node) -> bool:
    """Opset 13 and later default to the last axis, earlier ones to axis 1 and everything behind it."""
    axis, rank = attribute(node, "axis", -1), rank_of(node.outputs[0])
    return axis == -1 or rank is None or axis == rank - 1


def _scores_above(value: ir.Value | None) -> _Scores | None:
    """The product above a softmax, past masks and scale."""
    masks: list[ir.Value] = []
    scale: float | None = 1.0
    for _ in range(_STEP_LIMIT):
        node = value.producer() if value is not None else None
        if node is None:
            return None
        if is_op(node, "MatMul"):
            computed = all(given is not None and root_of(given) is None for given in node.inputs)
            return _Scores(node, tuple(masks), scale) if computed else None
        if is_op(node, "Add"):
            index = _scores_side(node)
            masks += [given for given in node.inputs[1 - index : 2 - index] if given is not None]
            value = node.inputs[index]
        elif is_op(node, "Where"):
            index = 1 if _leads_to_product(node.inputs[1]) else 2
            masks += [given for given in node.inputs[:1] if given is not None]
            value = node.inputs[index]
        elif is_op(node, "Mul", "Div"):
            value, factor = _scaled(node)
            scale = scale * factor if scale is not None and factor is not None else None
        elif is_op(node, "Cast", "Identity", "Reshape", "Max", "Tanh"):
            value = node.inputs[0]
        else:
            return None
    return None


def _scores_side(node: ir.Node) -> int:
    """Which input of an Add is the scores: the one that leads to a product of two computed values."""
    return 0 if _leads_to_product(node.inputs[0]) else 1


def _leads_to_product(value: ir.Value | None, branches: int = 2) -> bool:
    for _ in range(_STEP_LIMIT):
        node = value.producer() if value is not None else None
        if node is None:
            return False
        if is_op(node, "MatMul"):
            return all(root_of(given) is None for given in node.inputs)
        if is_op(node, "Mul", "Div"):
            value, _factor = _scaled(node)
        elif is_op(node, "Where") and branches:
            return any(_leads_to_product(given, branches - 1) for given in node.inputs[1:])
        elif is_op(node, "Cast", "Identity", "Reshape", "Add", "Max", "Tanh"):
            value = node.inputs[0]
        else:
            return False
    return False


def _scaled(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    """The value that a Mul or Div scales, and the factor; None for a factor that is computed."""
    for index in (1, 0):
        scalar = scalar_of(node.inputs[index])
        if scalar is not None and (index == 1 or node.op_type == "Mul"):
            return node.inputs[1 - index], 1 / scalar[0] if node.op_type == "Div" else scalar[0]
    return node.inputs[0], None


def _product_below(value: ir.Value) -> ir.Node | None:
    """The product of the softmax with the values."""
    pending, seen = [value], 0
    while pending and seen < _STEP_LIMIT:
        seen += 1
        for node, index in pending.pop(0).uses():
            if is_op(node, "MatMul") and index == 0 and root_of(node.inputs[1]) is None:
                return node
            if is_op(node, *_BEHIND_SOFTMAX):
                pending.append(node.outputs[0])
    return None


def _linear_below(context: ir.Value) -> Linear | None:
    """The linear layer that reads the merged heads."""
    pending, seen = [context], 0
    while pending and seen < _STEP_LIMIT:
        seen += 1
        for node, index in pending.pop(0).uses():
            linear = find_linear(node) if index == 0 and producer(node.outputs[0], "MatMul", "Gemm") else None
            if isinstance(linear, Linear):
                return linear
            if index == 0 and is_op(node, *_BEHIND_PRODUCT):
                pending.append(node.outputs[0])
    return None

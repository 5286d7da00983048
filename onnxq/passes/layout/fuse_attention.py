"""softmax(q kᵀ scale + mask) v, heads split and merged by Reshape and Transpose  =>  Attention(Q, K, V, mask)

Fires on the core of an attention whose queries, keys and values are split into heads from three axes (batch,
position, channels), with factors anywhere on the way, one additive mask or none, and nothing but the product
with the values reading the softmax. The operator (opset 23) reads the heads where they lie: no operand is
transposed, the mask is what the product is added to, and a head's scores stay in cache until they are used.
ONNX Runtime has it on CPUs from 1.23 on.

Where more than moves is between the channels and the product, as rotary positions and caches are, the
operator is given four axes (batch, head, position, channels), and takes heads of keys and values that are
repeated for several of queries as they were before.

The operator wants masks of the scores' last two axes, so others are expanded, once for all layers that share
one. A guard that puts zeros where every key of a row is masked (NaN, for a mask of -inf) becomes a factor of
0 or 1 for each row, taken from the mask; the mask of such a row becomes 0.

The same function for finite queries, keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.apart_heads import ApartHeads, find_apart
from onnxq.ir.split_heads import KEYS, QUERIES, SplitHeads, Tracker, find_merged, find_split, only_reader
from onnxq.ir.walk import attribute, is_op, is_scalar_close, producer, rank_of, scalar_of
from onnxq.passes.fused_attention_evidence import attention_examples
from onnxq.passes.layout.mask import PreparedMask, mask_obstacle, prepare_mask

Operand = SplitHeads | ApartHeads


@dataclass(frozen=True, eq=False)
class Core:
    """What lies between the linear layers of an attention.

    Attributes:
        query, key, value: The three operands, from where they are split into heads, or all apart.
        mask: What is added to the scores; None if nothing is.
        scale: The factor on the scores.
        is_guarded: Whether rows without any visible key are zeros, not NaN.
        softmax: The Softmax.
        output: The merged heads.
    """

    query: Operand
    key: Operand
    value: Operand
    mask: ir.Value | None
    scale: float
    is_guarded: bool
    softmax: ir.Node
    output: ir.Value


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Spelled-out attention core => the operator."""

    name: ClassVar[str] = "fuse-attention"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=23)

    def match(self, node: ir.Node, context: Context) -> Core | Reject | None:
        """The core around the Softmax `node`."""
        if not is_op(node, "Softmax"):
            return None
        scores = _scores_above(node)
        if scores is None:
            return None
        product, mask, scale = scores
        label = node.name or str(node.outputs[0].name)
        below = _weighted_below(node)
        if isinstance(below, str):
            return Reject(below, label)
        weighted, context_value, is_guarded = below
        operands = _operands(product.inputs[0], product.inputs[1], weighted.inputs[1])
        if isinstance(operands, str):
            return Reject(operands, label)
        query, key, value = operands
        obstacle = _obstacle(node, operands, mask, is_guarded)
        if obstacle:
            return Reject(obstacle, label)
        merged = find_merged(context_value, _tracker(query, value))
        if merged is None:
            return Reject("the heads are not merged into three axes by reshapes alone", label)
        scale *= query.scale * key.scale
        if not scale > 0 or value.scale != 1:
            return Reject("the operator takes positive factors on the scores, and none on the values", label)
        return Core(query, key, value, mask, scale, is_guarded and mask is not None, node, merged)

    def rewrite(self, found: Core, edit: Edit) -> None:
        """Put the operator in place of what merges the heads."""
        output = found.output
        last = output.producer()
        assert last is not None
        name = str(output.name)
        inputs = [found.query.source, found.key.source, found.value.source]
        prepared = PreparedMask(None, None)
        if found.mask is not None:
            prepared = prepare_mask(
                found.mask, inputs[0], inputs[1], edit, before=found.softmax, is_guarded=found.is_guarded
            )
            inputs += [prepared.mask] if prepared.mask is not None else []
        scale = {"scale": float(np.float32(found.scale))}
        if isinstance(found.query, SplitHeads):
            scale |= {"q_num_heads": found.query.heads, "kv_num_heads": found.key.heads}
        (merged,) = edit.insert("Attention", inputs, scale, before=last, names=[f"{name}_attention"])
        if isinstance(found.query, ApartHeads):
            merged = _merge(merged, found.query.heads * found.value.size, edit, last)
        merged.type, merged.shape = output.type, output.shape
        if prepared.seen is not None:
            names = [f"{name}_guarded"]
            (merged,) = edit.insert("Mul", [merged, prepared.seen], before=last, names=names, like=output)
        edit.take_over(output, merged)

    @classmethod
    def examples(cls) -> Examples:
        """Spellings of exporters, with and without mask and guard; what the operator does not compute."""
        return attention_examples()


def _operands(*operands: ir.Value | None) -> tuple[Operand, Operand, Operand] | str:
    """Queries, keys and values, all where they are split into heads or all apart; else what is amiss."""
    orders = (QUERIES, KEYS, QUERIES)
    found: list[Operand | None] = [
        find_split(operand, order) if operand is not None else None
        for operand, order in zip(operands, orders, strict=True)
    ]
    if None in found:
        found = [
            find_apart(operand, swapped=order is KEYS) if operand is not None else None
            for operand, order in zip(operands, orders, strict=True)
        ]
    query, key, value = found
    if query is None or key is None or value is None:
        what = ("queries", "keys", "values")[found.index(None)]
        return f"the {what} are not split into heads from three axes by reshapes alone, nor of known heads"
    return query, key, value


def _tracker(query: Operand, value: Operand) -> Tracker:
    """What is known of the axes of the heads' results."""
    if isinstance(query, SplitHeads):
        return query.tracker
    tracker = Tracker({"head": query.heads, "channel": value.size})
    tracker.learn(query.source, (*QUERIES[:-1], "channel of a query"))
    return tracker


def _merge(heads: ir.Value, channels: int, edit: Edit, before: ir.Node) -> ir.Value:
    """[B, heads, S, D] as [B, S, channels]."""
    name = str(heads.name)
    order = {"perm": (0, 2, 1, 3)}
    (swapped,) = edit.insert("Transpose", [heads], order, before=before, names=[f"{name}_swapped"])
    shape = edit.constant(np.array([0, 0, channels], np.int64), f"{name}_merged_shape", near=before)
    return edit.insert("Reshape", [swapped, shape], before=before, names=[f"{name}_merged"])[0]


def _scores_above(softmax: ir.Node) -> tuple[ir.Node, ir.Value | None, float] | None:
    """The product of queries and keys above a softmax, the mask added to it, and the factor on it."""
    value, mask = softmax.inputs[0], None
    add = producer(value, "Add")
    if add is not None:
        if not _is_read_once(value):
            return None
        index = next((i for i in (0, 1) if _product_above(add.inputs[i]) is not None), None)
        if index is None:
            return None
        value, mask = add.inputs[index], add.inputs[1 - index]
    found = _product_above(value)
    return None if found is None else (found[0], mask, found[1])


def _product_above(value: ir.Value | None) -> tuple[ir.Node, float] | None:
    """The product that gives `value`, up to a constant factor; its results are read by this path alone."""
    factor = 1.0
    node = producer(value, "MatMul", "Mul", "Div")
    if not _is_read_once(value):
        return None
    if node is not None and not is_op(node, "MatMul"):
        index = 1 if scalar_of(node.inputs[1]) is not None or is_op(node, "Div") else 0
        scalar = scalar_of(node.inputs[index])
        if scalar is None or not scalar[0]:
            return None
        factor = scalar[0] if is_op(node, "Mul") else 1 / scalar[0]
        value = node.inputs[1 - index]
        node = producer(value, "MatMul")
    if node is None or value is None or rank_of(value) != 4 or not _is_read_once(value):
        return None
    return node, factor


def _is_read_once(value: ir.Value | None) -> bool:
    """Whether one node reads the numbers of `value`, which is no graph output."""
    if value is None or value.is_graph_output():
        return False
    return sum(not is_op(node, "Shape") for node, _ in value.uses()) == 1


def _weighted_below(softmax: ir.Node) -> tuple[ir.Node, ir.Value, bool] | str:
    """The product with the values, the value that holds the heads' results, and whether rows are guarded."""
    value = softmax.outputs[0]
    after = _guarded(value)
    is_guarded = after is not None
    value = after or value
    weighted = only_reader(value)
    if weighted is None or not is_op(weighted, "MatMul"):
        return "something else than a product with the values reads the softmax"
    context = weighted.outputs[0]
    after = _guarded(context)
    return weighted, after or context, is_guarded or after is not None


def _guarded(value: ir.Value) -> ir.Value | None:
    """What Where(IsNaN(value), 0, value) gives, if `value` is read by that alone."""
    readers = [node for node, _ in value.uses() if not is_op(node, "Shape")]
    where = next((node for node in readers if is_op(node, "Where") and node.inputs[2] is value), None)
    if where is None or len(readers) != 2 or value.is_graph_output():
        return None
    asked = producer(where.inputs[0], "IsNaN")
    if asked is None or asked.inputs[0] is not value or not is_scalar_close(where.inputs[1], 0.0):
        return None
    return where.outputs[0]


def _obstacle(
    softmax: ir.Node, splits: tuple[Operand, Operand, Operand], mask: ir.Value | None, guarded: bool
) -> str:
    """Why the operator would compute something else; "" if it would not."""
    if attribute(softmax, "axis", -1) not in (-1, 3):
        return "the softmax is not over the keys"
    query, key, value = splits
    if len({split.heads for split in splits}) > 1 or query.size != key.size:
        return "queries, keys and values differ in the number of their heads"
    if query.groups != query.heads or key.groups != value.groups:
        return "heads of queries are repeated, or those of keys more often than those of values"
    kinds = {split.source.dtype for split in splits}
    if not kinds <= {None, ir.DataType.FLOAT}:
        return "it does not compute in float32"
    batches = {_token(split.source) for split in splits}
    if len(batches) > 1 or None in batches:
        return "queries and keys are not known to have as many samples"
    if mask is not None and (obstacle := mask_obstacle(mask, is_guarded=guarded)):
        return obstacle
    return ""


def _token(value: ir.Value) -> object:
    """The first dimension: a number, or a symbol."""
    size = value.shape[0] if value.shape is not None else None
    return size if isinstance(size, int) else getattr(size, "value", None)

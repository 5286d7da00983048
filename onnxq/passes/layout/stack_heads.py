"""q MatMul (k repeated R times over heads)  =>  (R heads of q stacked as rows) MatMul k, and back

Fires on a product whose right factor is made of G heads, each repeated R times in a row for R heads of the
left one (grouped-query attention, spelled out with Unsqueeze, Expand and Reshape), be it swapped or scaled on
the way. R heads [S, D] that meet the same head are one matrix [R·S, D], and stacking them moves nothing:

    [B, G·R, S, D] x [B, G·R, D, T]   =   reshape([B, G, R·S, D] x [B, G, D, T])

The copies of keys and values are not made any more, and the products have R times as many rows, which pays
most where a language model computes one token at a time. Whatever mask is added to the scores stays as it is,
so this holds for every mask, past and batch. Constant factors of both sides become one, on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.apart_heads import scaled_by
from onnxq.ir.axes import size_at
from onnxq.ir.repeat import Repeated, find_repeated, find_swapped
from onnxq.ir.walk import is_op, rank_of
from onnxq.passes.decoder_evidence import stack_examples

_STEP_LIMIT = 4


@dataclass(frozen=True, eq=False)
class Grouped:
    """A product with repeated heads.

    Attributes:
        product: The MatMul.
        left: Its left factor, in front of a constant factor.
        repeated: What stands behind its right factor.
        is_swapped: Whether the last two axes of that are swapped.
        factor: The product of the constant factors on both sides.
    """

    product: ir.Node
    left: ir.Value
    repeated: Repeated
    is_swapped: bool
    factor: float


@dataclass(frozen=True)
class StackHeads(Pass):
    """Product with repeated heads => the heads that share one are stacked as rows."""

    name: ClassVar[str] = "stack-heads"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> Grouped | Reject | None:
        """The product of queries and keys, or of probabilities and values."""
        if not is_op(node, "MatMul"):
            return None
        value, factor, is_swapped = node.inputs[1], 1.0, False
        repeated = find_repeated(value)
        for _ in range(_STEP_LIMIT):
            if repeated is not None:
                break
            swapped, scaled = find_swapped(value), scaled_by(value)
            if swapped is not None:
                value, is_swapped = swapped, not is_swapped
            elif scaled is not None:
                value, factor = scaled[0], factor * scaled[1]
            repeated = find_repeated(value)
        if not isinstance(repeated, Repeated):
            return repeated
        left, heads = node.inputs[0], repeated.groups * repeated.times
        before = scaled_by(left)
        if before is not None:
            left, factor = before[0], factor * before[1]
        if left is None or rank_of(left) != 4 or size_at(left, -3) != heads:
            return Reject(f"the left factor is not known to have {heads} heads", label_of(node))
        if left.dtype not in (None, ir.DataType.FLOAT):
            return Reject("it is not computed in float32", label_of(node))
        return Grouped(node, left, repeated, is_swapped, factor)

    def rewrite(self, found: Grouped, edit: Edit) -> None:
        """Stack, multiply, unstack."""
        node, groups = found.product, found.repeated.groups
        output = node.outputs[0]
        name = str(output.name)
        rows = _reshape(edit, found.left, groups, node, f"{name}_rows")
        if found.factor != 1.0:
            scale = edit.constant(np.array(found.factor, np.float32), f"{name}_scale", near=node)
            (rows,) = edit.insert("Mul", [rows, scale], before=node, names=[f"{name}_scaled"])
        right = found.repeated.source
        if found.is_swapped:
            order = {"perm": (0, 1, 3, 2)}
            (right,) = edit.insert("Transpose", [right], order, before=node, names=[f"{name}_swapped"])
        (product,) = edit.insert("MatMul", [rows, right], before=node, names=[f"{name}_stacked"])
        heads = groups * found.repeated.times
        edit.take_over(output, _reshape(edit, product, heads, node, f"{name}_heads", like=output))

    @classmethod
    def examples(cls) -> Examples:
        """Keys and values of grouped-query attention, swapped and scaled; others that are not repeated."""
        return stack_examples()


def _reshape(
    edit: Edit, value: ir.Value, heads: int, node: ir.Node, name: str, like: ir.Value | None = None
) -> ir.Value:
    """[B, *, *, D] as [B, heads, *, D]."""
    target = edit.constant(np.array([0, heads, -1, 0]), f"{name}_shape", near=node)
    (result,) = edit.insert("Reshape", [value, target], before=node, names=[name], like=like)
    return result

"""linear(x; W, b) * c  =>  linear(x; W c, b c),  c one number for each column

Fires on a Mul or a Div by a constant vector that alone reads a linear layer: the layer scale of vision
transformers, in front of each residual addition. Quantized, a column's factor goes into its scale; what is
left is one pass less over the tensor for each sublayer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, linear_giving, rewrite_linear
from onnxq.ir.precision import fits
from onnxq.ir.walk import constant_of, constant_shape, is_op, rank_of
from onnxq.passes.vision_evidence import layer_scale_examples


@dataclass(frozen=True, eq=False)
class Scaled:
    """A linear layer, what scales it, and the factor of each column, float64 [N]."""

    linear: Linear
    node: ir.Node
    factor: np.ndarray


@dataclass(frozen=True)
class FoldLayerScale(Pass):
    """A factor of each column behind a linear layer => the layer's own weight and bias."""

    name: ClassVar[str] = "fold-layer-scale"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> Scaled | Reject | None:
        """A Mul or Div by a vector, and the linear layer that it alone reads."""
        if not is_op(node, "Mul", "Div") or len(node.inputs) != 2:
            return None
        for index in (0, 1) if is_op(node, "Mul") else (0,):
            value, other = node.inputs[index], node.inputs[1 - index]
            linear = linear_giving(value) if value is not None else None
            if linear is not None and constant_shape(other) is not None:
                return _scaled(linear, node, other)
        return None

    def rewrite(self, found: Scaled, edit: Edit) -> None:
        """Give the layer the product of both and take the factor away."""
        linear = found.linear
        bias = None if linear.bias is None else linear.bias.astype(np.float64) * found.factor
        weight = linear.weight.astype(np.float64) * found.factor
        rewrite_linear(linear, edit, weight, bias)
        edit.take_over(found.node.outputs[0], linear.output)

    @classmethod
    def examples(cls) -> Examples:
        """All spellings of a linear; factors of rows, shared layers and weights."""
        return layer_scale_examples()


def _scaled(linear: Linear, node: ir.Node, other: ir.Value | None) -> Scaled | Reject:
    label, array = label_of(node), constant_of(other)
    if len(linear.output.uses()) > 1 or linear.output.is_graph_output():
        return Reject("the linear layer is read elsewhere", label)
    made = linear.output.producer()
    if made is None or made.graph is not node.graph:
        return Reject("the linear layer is in an outer graph", label)
    if array is None or any(size != 1 for size in array.shape[:-1]) or array.size not in (1, linear.columns):
        return Reject("it is not one factor for each column", label)
    rank = rank_of(linear.output) or rank_of(linear.activation)
    if array.ndim > 1 and (rank is None or array.ndim > rank):
        return Reject("the factor may give the result more axes", label)
    readers = linear.root.uses() if linear.root is not None else ()
    if sum(reader.graph is node.graph for reader, _ in readers) > 1:  # two weights where there was one
        return Reject("the weight is used elsewhere", label)
    factor = np.broadcast_to(array.astype(np.float64).reshape(-1), (linear.columns,))
    if is_op(node, "Div"):
        with np.errstate(divide="ignore"):
            factor = 1 / factor
    if not _holds(linear, factor):
        return Reject("the weight would not fit into its type", label)
    return Scaled(linear, node, factor)


def _holds(linear: Linear, factor: np.ndarray) -> bool:
    if not np.isfinite(factor).all():
        return False
    parts = [linear.weight.astype(np.float64) * factor]
    parts += [linear.bias.astype(np.float64) * factor] if linear.bias is not None else []
    return all(fits(part, linear.dtype) for part in parts)

"""move(linear(x; W, b)) * c  =>  move(linear(x; c W, c b)), c one number

Fires on a Mul or a Div by one constant whose other operand comes from a linear layer through nothing but
moves (Transpose, Reshape, ...) and products of activations, and is read by nobody else on the way. In
attention that is the factor on queries, keys or scores: an elementwise pass over each of them, for nothing.

ONNX Runtime folds such a factor into its own FusedMatMul; runtimes that quantize what a linear layer gives do
not look through it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, linear_giving, rewrite_linear
from onnxq.ir.walk import constant_of, is_op
from onnxq.passes.quantize_evidence import factor_examples

_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_ENDS = (2.0**-20, 2.0**20)
"""Factors beyond these might take weights out of the range of their type."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A number behind a linear layer.

    Attributes:
        node: The Mul or Div.
        place: Which of its inputs is computed.
        number: What that is multiplied by.
        linear: Where it comes from.
        path: Values on the way, the linear's output first, that hold other numbers from now on.
    """

    node: ir.Node
    place: int
    number: float
    linear: Linear
    path: tuple[ir.Value, ...]


@dataclass(frozen=True)
class FoldFactor(Pass):
    """A constant factor behind a linear layer => the layer's own weight."""

    name: ClassVar[str] = "fold-factor"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> Factor | Reject | None:
        """A Mul or Div by one number, and the linear layer that it scales."""
        found = _number_of(node)
        if found is None:
            return None
        place, number = found
        start = node.inputs[place]
        path = list(_path(start))
        linear = linear_giving(path[-1]) if path else None
        if linear is None:
            return None
        label = label_of(node)
        if not _ENDS[0] <= abs(number) <= _ENDS[1]:
            return Reject("the factor is out of the range of weights", label)
        if any(len(value.uses()) > 1 or value.is_graph_output() for value in path):
            return Reject("something else reads what is scaled", label)
        return Factor(node, place, number, linear, tuple(reversed(path)))

    def rewrite(self, found: Factor, edit: Edit) -> None:
        """Scale the weight, and let readers of the product read what was multiplied."""
        linear = found.linear
        bias = None if linear.bias is None else linear.bias.astype(np.float64) * found.number
        rewrite_linear(linear, edit, linear.weight.astype(np.float64) * found.number, bias)
        scaled = found.node.inputs[found.place]
        assert scaled is not None
        for value in found.path:
            if value is not scaled:
                edit.rename(value, f"{value.name}_scaled")
        edit.take_over(found.node.outputs[0], scaled)

    @classmethod
    def examples(cls) -> Examples:
        """Factors behind linear layers and behind products of them; vectors, and what others read."""
        return factor_examples()


def _number_of(node: ir.Node) -> tuple[int, float] | None:
    """Which input of a Mul or Div is computed, and the number that the other one is a factor of."""
    if not is_op(node, "Mul", "Div") or len(node.inputs) != 2:
        return None
    for place in (0, 1) if node.op_type == "Mul" else (0,):
        computed, constant = node.inputs[place], constant_of(node.inputs[1 - place])
        if computed is None or constant is None or constant.size != 1 or constant.dtype.kind != "f":
            continue
        rank = None if computed.shape is None else len(computed.shape)
        if constant.ndim and (rank is None or constant.ndim > rank):
            continue
        number = float(constant.reshape(()))
        if number and np.isfinite(number):
            return place, 1 / number if node.op_type == "Div" else number
    return None


def _path(value: ir.Value | None) -> Iterator[ir.Value]:
    """`value` and what it is moved or multiplied from, as far up as a factor may travel."""
    while value is not None:
        yield value
        node = value.producer()
        if node is None:
            return
        product = is_op(node, "MatMul") and constant_of(node.inputs[1]) is None
        if not product and not is_op(node, *_MOVES):
            return
        value = node.inputs[0]

"""Embeddings: rows of a constant table picked by indices, and linears that share the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.precision import float_view, is_float
from onnxq.ir.walk import (
    attribute,
    constant_dtype,
    constant_of,
    constant_shape,
    input_of,
    is_op,
    is_overridable,
    root_of,
)

_CHAIN_LIMIT = 16


@dataclass(frozen=True, eq=False)
class Embedding:
    """A Gather of rows of a constant float table.

    Attributes:
        node: The Gather.
        indices: Which rows, any integer shape.
        output: The rows, the indices' shape and [C] behind.
        rows: Number of rows.
        channels: C.
        root: The initializer or Constant output that holds the table.
        tied: Linear layers that read the same initializer, such as a language model's head.
        dtype: Element type of the rows.
    """

    node: ir.Node
    indices: ir.Value
    output: ir.Value
    rows: int
    channels: int
    root: ir.Value
    tied: tuple[Linear, ...]
    dtype: np.dtype

    @cached_property
    def table(self) -> np.ndarray:
        """The table [rows, C]; float64 for a double model, else float32."""
        array = constant_of(self.node.inputs[0])
        if array is None:
            raise LookupError(f"the table of {self.node.name!r} was changed since it was found")
        return float_view(array)


def find_embedding(node: ir.Node) -> Embedding | Reject | None:
    """The embedding that the Gather `node` is; a `Reject` if a caller may override its table."""
    if not is_op(node, "Gather") or attribute(node, "axis", 0) != 0:
        return None
    table, indices = input_of(node, 0), input_of(node, 1)
    root = root_of(table)
    dtype = constant_dtype(table)
    if root is None or indices is None or dtype is None or not is_float(dtype):
        return None
    if is_overridable(table):
        return Reject("the table is a graph input too, so a caller may override it", node.name or "")
    shape = constant_shape(table)
    if shape is None or len(shape) != 2:
        return None
    tied = tuple(linears_of(root))
    return Embedding(node, indices, node.outputs[0], shape[0], shape[1], root, tied, dtype)


def linears_of(root: ir.Value) -> list[Linear]:
    """Every linear layer, in any subgraph, whose weight the initializer or Constant output `root` holds."""
    found: list[Linear] = []
    pending = [(root, 0)]
    while pending:
        value, depth = pending.pop(0)
        for node, index in value.uses():
            if index == 1 and is_op(node, "MatMul", "Gemm"):
                linear = find_linear(node)
                if isinstance(linear, Linear):
                    found.append(linear)
            elif index == 0 and depth < _CHAIN_LIMIT and root_of(node.outputs[0]) is root:
                pending.append((node.outputs[0], depth + 1))
    return found

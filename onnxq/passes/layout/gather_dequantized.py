"""Cast(Gather(codes, i)) * Gather(scales, i)  =>  GatherBlockQuantized(codes + 128, i, scales)

Fires on rows picked out of an int8 table and dequantized with a scale of their own, as rounding of embeddings
leaves them. ONNX Runtime's operator reads the codes and writes the floats once; spelled out they are written
and read three times over. A row is one block, and the operator wants codes of 8 bits to be unsigned.

The same product of the same two numbers, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.walk import attribute, cast_type, constant_of, is_op, producer
from onnxq.passes.residual_evidence import rows_examples

LEAST_BLOCK = 16
_MIDDLE = 128


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table, dequantized.

    Attributes:
        product: The Mul.
        codes: int8 [V, C].
        scales: float32 [V, 1].
        indices: Which rows.
    """

    product: ir.Node
    codes: np.ndarray
    scales: np.ndarray
    indices: ir.Value


@dataclass(frozen=True)
class GatherDequantized(Pass):
    """Gather of codes and of scales, Cast, Mul => one operator."""

    name: ClassVar[str] = "gather-dequantized"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> Rows | Reject | None:
        """The rows that the Mul `node` dequantizes."""
        if not is_op(node, "Mul"):
            return None
        for index in (0, 1):
            cast = producer(node.inputs[index], "Cast")
            rows = producer(cast.inputs[0], "Gather") if cast is not None else None
            scaling = producer(node.inputs[1 - index], "Gather")
            if cast is not None and rows is not None and scaling is not None:
                return _rows(node, cast, rows, scaling)
        return None

    def rewrite(self, found: Rows, edit: Edit) -> None:
        """Shift the codes, and put the operator in the nodes' place."""
        node, output = found.product, found.product.outputs[0]
        name = str(output.name)
        shifted = (found.codes.astype(np.int16) + _MIDDLE).astype(np.uint8)
        inputs = [
            edit.constant(shifted, f"{name}_codes", near=node),
            found.indices,
            edit.constant(found.scales, f"{name}_scales", near=node),
        ]
        width = max(LEAST_BLOCK, 1 << (found.codes.shape[1] - 1).bit_length())
        kind = {"bits": 8, "block_size": width, "gather_axis": 0, "quantize_axis": 1}
        (rows,) = edit.insert(
            "GatherBlockQuantized",
            inputs,
            kind,
            domain="com.microsoft",
            before=node,
            names=[f"{name}_rows"],
            like=output,
        )
        edit.take_over(output, rows)

    @classmethod
    def examples(cls) -> Examples:
        """Tables with a scale for each row; other tables, other indices, rows read elsewhere."""
        return rows_examples()


def _rows(product: ir.Node, cast: ir.Node, rows: ir.Node, scaling: ir.Node) -> Rows | Reject | None:
    label = str(product.outputs[0].name)
    codes, scales = constant_of(rows.inputs[0]), constant_of(scaling.inputs[0])
    if codes is None or scales is None or codes.dtype != np.int8 or codes.ndim != 2:
        return None
    if cast_type(cast) != ir.DataType.FLOAT or scales.dtype != np.float32:
        return Reject("the operator computes in float32 here", label)
    if attribute(rows, "axis", 0) not in (0, -2) or attribute(scaling, "axis", 0) not in (0, -2):
        return Reject("it does not pick rows", label)
    if scales.shape != (len(codes), 1):
        return Reject("the scales are not one for each row", label)
    indices = rows.inputs[1]
    if indices is None or indices is not scaling.inputs[1]:
        return Reject("codes and scales are picked by different indices", label)
    if any(_is_read_elsewhere(node) for node in (cast, rows, scaling)):
        return Reject("something else reads the rows before they are dequantized", label)
    return Rows(product, codes, scales, indices)


def _is_read_elsewhere(node: ir.Node) -> bool:
    value = node.outputs[0]
    return value.is_graph_output() or len(value.uses()) != 1

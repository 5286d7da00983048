"""Quantize(move(Dequantize(codes)))  =>  move(codes),  both with one scale and zero point

Fires where codes become floats, are only moved (transposed, re-shaped, sliced, dealt out from depth to space)
and become codes on the same grid again. `(code - zero) * scale / scale` rounds back to the code, so nothing
changes but that a quarter of the bytes is moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.convolution import only_reader
from onnxq.ir.walk import constant_of, input_of, is_op
from onnxq.passes.clean.forward import repeats
from onnxq.passes.vision_evidence import code_examples

MOVES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "DepthToSpace", "SpaceToDepth")
"""Operators that hand on elements of their first input as they are, whatever their type."""


@dataclass(frozen=True, eq=False)
class Detour:
    """Codes that are floats for a while.

    Attributes:
        codes: What is dequantized.
        moves: What happens to the floats, the first first.
        quantize: What makes them codes again.
    """

    codes: ir.Value
    moves: tuple[ir.Node, ...]
    quantize: ir.Node


@dataclass(frozen=True)
class MoveCodes(Pass):
    """Floats that are moved between equal grids => codes that are moved."""

    name: ClassVar[str] = "move-codes"
    contract: ClassVar[Contract] = Contract.BITWISE
    needs: ClassVar[Needs] = Needs(opset=13)

    def match(self, node: ir.Node, context: Context) -> Detour | Reject | None:
        """A QuantizeLinear, and the DequantizeLinear behind nothing but moves in front of it."""
        if not is_op(node, "QuantizeLinear"):
            return None
        moves: list[ir.Node] = []
        value = input_of(node, 0)
        while value is not None and (made := value.producer()) is not None:
            if is_op(made, "DequantizeLinear"):
                return _detour(made, moves, node)
            if not is_op(made, *MOVES) or only_reader(value) is None:
                return None
            moves.insert(0, made)
            value = made.inputs[0]
        return None

    def rewrite(self, found: Detour, edit: Edit) -> None:
        """Apply the moves to the codes."""
        if not found.moves:
            edit.replace(found.quantize.outputs[0], found.codes)
            edit.remove_unused(found.quantize)
            return
        value = found.codes
        for node in found.moves:
            (moved,) = edit.insert(
                node.op_type,
                [value, *node.inputs[1:]],
                dict(node.attributes),
                before=node,
                names=[f"{node.outputs[0].name}_codes"],
                like=node.outputs[0],
            )
            moved.type = found.quantize.outputs[0].type or found.codes.type
            value = moved
        edit.take_over(found.quantize.outputs[0], value)

    @classmethod
    def examples(cls) -> Examples:
        """Moves of all kinds; other grids, floats that are read elsewhere, something computed on the way."""
        return code_examples()


def _detour(dequantize: ir.Node, moves: list[ir.Node], quantize: ir.Node) -> Detour | Reject | None:
    codes = input_of(dequantize, 0)
    if codes is None or constant_of(codes) is not None:
        return None
    first, second = _grid(dequantize), _grid(quantize)
    if first is None or second is None:
        return Reject("a scale is not constant, or not one for the tensor", label_of(quantize))
    if first != second or second[2] not in ("uint8", "int8"):
        return Reject("the codes are on another grid afterwards", label_of(quantize))
    if not moves and (refused := repeats(quantize, codes)) is not None:
        return refused
    return Detour(codes, tuple(moves), quantize)


def _grid(node: ir.Node) -> tuple[float, int, str] | None:
    """Scale, zero point and element type of the codes; None unless constant and of one element each."""
    if set(node.attributes) & {"block_size", "output_dtype", "saturate", "precision"}:
        return None
    scale, zero = constant_of(input_of(node, 1)), constant_of(input_of(node, 2))
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or scale.dtype != np.float32:
        return None
    if not np.isfinite(scale).all() or scale.item() < np.finfo(np.float32).tiny:
        return None
    return float(scale.item()), int(zero.item()), zero.dtype.name

"""DequantizeLinear(QuantizeLinear(move(x)))  =>  move(DequantizeLinear(QuantizeLinear(x)))

Fires on a pair with one scale behind Transpose, Reshape, Squeeze, Unsqueeze or Flatten, whose result nobody
else reads. Rounding looks at single elements, so it commutes with whatever only moves them.

Runtimes that compile the graph fuse a pair into what computes its input, and move integers from there on;
with the pair behind the move they write floats, move those, and round in a pass of its own. ONNX Runtime
moves pairs back by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import is_op, producer
from onnxq.passes.quantize_evidence import hoist_examples

_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True, eq=False)
class Pair:
    """Rounding behind a move.

    Attributes:
        quantize: Reads what was moved.
        dequantize: Alone reads its codes.
        move: Gives what is rounded.
    """

    quantize: ir.Node
    dequantize: ir.Node
    move: ir.Node


@dataclass(frozen=True)
class HoistRounding(Pass):
    """A pair of Q and DQ behind a move => the pair in front of it."""

    name: ClassVar[str] = "hoist-rounding"
    contract: ClassVar[Contract] = Contract.BITWISE
    needs: ClassVar[Needs] = Needs(opset=10)

    def match(self, node: ir.Node, context: Context) -> Pair | Reject | None:
        """A DequantizeLinear, the QuantizeLinear in front and the move in front of that."""
        if not is_op(node, "DequantizeLinear"):
            return None
        quantize = producer(node.inputs[0], "QuantizeLinear")
        moved = quantize.inputs[0] if quantize is not None else None
        move = moved.producer() if moved is not None else None
        if quantize is None or moved is None or move is None or not is_op(move, *_MOVES):
            return None
        if move.inputs[0] is None or move.graph is not node.graph:
            return None
        if any(value is None or value.shape is None or value.shape.rank() for value in quantize.inputs[1:]):
            return Reject("it has a scale for each channel", label_of(quantize))
        if any(len(value.uses()) > 1 or value.is_graph_output() for value in (moved, quantize.outputs[0])):
            return Reject("something else reads what is rounded", label_of(quantize))
        return Pair(quantize, node, move)

    def rewrite(self, found: Pair, edit: Edit) -> None:
        """Round first, then move."""
        source, move = found.move.inputs[0], found.move
        assert source is not None
        name = source.name
        (codes,) = edit.insert(
            "QuantizeLinear", [source, *found.quantize.inputs[1:]], before=move, names=[f"{name}_quantized"]
        )
        (rounded,) = edit.insert(
            "DequantizeLinear",
            [codes, *found.dequantize.inputs[1:]],
            before=move,
            names=[f"{name}_dequantized"],
            like=source,
        )
        attributes = {key: attribute.value for key, attribute in move.attributes.items()}
        output = found.dequantize.outputs[0]
        (moved,) = edit.insert(
            move.op_type,
            [rounded, *move.inputs[1:]],
            attributes,
            before=move,
            names=[f"{output.name}_moved"],
            like=output,
        )
        edit.take_over(output, moved)

    @classmethod
    def examples(cls) -> Examples:
        """Pairs behind moves; pairs with a scale for each channel, and pairs that are read twice."""
        return hoist_examples()

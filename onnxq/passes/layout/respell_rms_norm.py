"""x · rsqrt(mean(x²) + ε) · γ, in any spelling  =>  Pow, ReduceMean, Add, Sqrt, Div, Mul

Fires on an RMS norm over the last axis, in float32, that is spelled out in another way than the one that
ONNX Runtime's optimizer turns into its vectorised kernel (SimplifiedLayerNormalization); with a Reciprocal,
say, it stays seven passes over the tensor. The norm is left in standard operators, so that any runtime can
read it; a model of opset 23 or later gets the operator itself from recompose-rms-norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import constant_shape
from onnxq.passes.decoder_evidence import rms_examples

_FUSED = ("Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul")


@dataclass(frozen=True, eq=False)
class Respelled:
    """An RMS norm, and the opset that its ReduceMean has to suit."""

    norm: Norm
    opset: int


@dataclass(frozen=True)
class RespellRMSNorm(Pass):
    """RMS norm in any spelling => the spelling that ONNX Runtime computes in one kernel."""

    name: ClassVar[str] = "respell-rms-norm"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=13)

    def match(self, node: ir.Node, context: Context) -> Respelled | Reject | None:
        """The norm whose last node is `node`."""
        norm = find_norm(node)
        if not isinstance(norm, Norm):
            return norm
        if norm.kind != "rms" or norm.is_operator or tuple(each.op_type for each in norm.nodes) == _FUSED:
            return None
        if norm.beta is not None or norm.gamma_place is None:
            return Reject("the kernel has a scale and no shift", label_of(node))
        if norm.input.dtype is not ir.DataType.FLOAT or norm.dtype != np.float32:
            return Reject("it is not known to compute in float32", label_of(node))
        reader, index = norm.gamma_place
        if constant_shape(reader.inputs[index]) != (norm.channels,):
            return Reject("its scale is not one number per channel", label_of(node))
        return Respelled(norm, context.opset)

    def rewrite(self, found: Respelled, edit: Edit) -> None:
        """Put the other spelling in the nodes' place."""
        norm = found.norm
        last, output = norm.nodes[-1], norm.output
        name = str(output.name)
        reader, index = norm.gamma_place or (last, 0)

        def scalar(value: float, what: str) -> ir.Value:
            return edit.constant(np.array(value, np.float32), f"{name}_{what}", near=last)

        def compute(op_type: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
            names = [f"{name}_{op_type.lower()}"]
            return edit.insert(op_type, inputs, attributes, before=last, names=names)[0]

        square = compute("Pow", norm.input, scalar(2.0, "two"))
        if found.opset < 18:
            mean = compute("ReduceMean", square, axes=(-1,), keepdims=1)
        else:
            axes = edit.constant(np.array([-1]), f"{name}_axes", near=last)
            mean = compute("ReduceMean", square, axes, keepdims=1)
        root = compute("Sqrt", compute("Add", mean, scalar(norm.epsilon, "epsilon")))
        scaled = compute("Mul", compute("Div", norm.input, root), reader.inputs[index])
        edit.take_over(output, scaled)

    @classmethod
    def examples(cls) -> Examples:
        """Reciprocal, a square by Mul, either opset; the spelling itself, a missing scale, double."""
        return rms_examples()

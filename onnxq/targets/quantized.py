"""Reading quantized graphs: codes, scales and zero points of activations and of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.ir.walk import constant_of
from onnxq.runtime.dequantized import dequantize_of

PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "Conv", "ConvTranspose"})
_INTEGER_PRODUCTS = {
    # operator: places of the weight, its scale (if it has one) and its zero point
    "MatMulIntegerToFloat": (1, 3, 5),
    "DynamicQuantizeMatMul": (1, 2, 3),
    "QLinearMatMul": (3, 4, 5),
    "QLinearConv": (3, 4, 5),
    "QGemm": (3, 4, 5),
    "MatMulInteger": (1, None, 3),
    "ConvInteger": (1, None, 3),
}


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """The integer weight of a product.

    Attributes:
        codes: As stored.
        scale: float, one number or a vector; None where the operator has none.
        zero_point: None where none is stated.
        columns: Axis of `codes` along which the product's output channels lie.
        axis: Axis of `codes` that a vector of scales belongs to.
    """

    codes: np.ndarray
    scale: np.ndarray | None
    zero_point: np.ndarray | None
    columns: int
    axis: int


def input_of(node: ir.Node, index: int | None) -> ir.Value | None:
    """Input `index` of a node, None where it has none."""
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is fixed when the model is loaded."""
    if value is None:
        return False
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The constant behind `value`."""
    return None if value is None else constant_of(value)


def weight_of(node: ir.Node) -> StoredWeight | None:
    """The constant integer weight of an integer product, or of a float one behind DequantizeLinear."""
    if node.op_type in _INTEGER_PRODUCTS:
        place, scale, zero = _INTEGER_PRODUCTS[node.op_type]
        codes = array_of(input_of(node, place))
        if codes is None or codes.ndim < 2:
            return None
        turned = node.op_type == "QGemm" and node.attributes.get_int("transB", 0) == 1
        columns = 0 if turned or node.op_type.endswith(("Conv", "ConvInteger")) else codes.ndim - 1
        return StoredWeight(
            codes, array_of(input_of(node, scale)), array_of(input_of(node, zero)), columns, columns
        )
    dequantize = weight_dequantize(node)
    return None if dequantize is None else _dequantized(node, dequantize)


def weight_dequantize(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear of a constant weight that a float product reads, through shape operators."""
    if node.op_type not in PRODUCTS:
        return None
    for value in (input_of(node, 1), input_of(node, 0)):
        found = dequantize_of(value)
        if found is not None and is_constant(found.inputs[0]):
            return found
    return None


def activation_dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear of something computed that gives `value`, through shape operators."""
    found = dequantize_of(value)
    return None if found is None or is_constant(found.inputs[0]) else found


def _dequantized(node: ir.Node, dequantize: ir.Node) -> StoredWeight | None:
    codes = array_of(dequantize.inputs[0])
    if codes is None or codes.ndim < 2:
        return None
    turned = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    if _is_turned(node, dequantize):
        turned = not turned
    first = turned or node.op_type == "Conv"
    columns = 0 if first else (1 if node.op_type == "ConvTranspose" else codes.ndim - 1)
    axis = dequantize.attributes.get_int("axis", 1) % codes.ndim
    return StoredWeight(
        codes,
        array_of(input_of(dequantize, 1)),
        array_of(input_of(dequantize, 2)),
        columns,
        axis,
    )


def _is_turned(node: ir.Node, dequantize: ir.Node) -> bool:
    """Whether an odd number of Transpose nodes lies between."""
    for start in node.inputs[:2]:
        value, turned = start, False
        while value is not None and (producer := value.producer()) is not None:
            if producer is dequantize:
                return turned
            turned ^= producer.op_type == "Transpose"
            value = producer.inputs[0] if producer.inputs else None
    return False

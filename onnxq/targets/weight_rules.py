"""Rules about quantized weights, tables and biases."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.targets.quantized import (
    activation_dequantize,
    input_of,
    is_constant,
    weight_dequantize,
    weight_of,
)

NARROW = 63
"""The greatest magnitude of weights of 7 bits."""
_SIGNED = ("int8", "int4")


def is_unsigned(node: ir.Node) -> bool:
    """A product whose weight is stored without a sign."""
    weight = weight_of(node)
    return weight is not None and weight.codes.dtype.name not in _SIGNED


def is_asymmetric(node: ir.Node) -> bool:
    """A product whose weight has a zero point other than 0."""
    weight = weight_of(node)
    if weight is None or weight.zero_point is None:
        return False
    return bool((weight.zero_point.astype(np.int32) != 0).any())


def is_wide(node: ir.Node) -> bool:
    """A product with a weight beyond 7 bits; without a sign, all 8 of them count."""
    weight = weight_of(node)
    return weight is not None and bool((np.abs(weight.codes.astype(np.int32)) > NARROW).any())


def has_scale_per_row(node: ir.Node) -> bool:
    """A product whose weight has a scale for each input channel."""
    weight = weight_of(node)
    if weight is None or weight.scale is None or weight.scale.size == 1:
        return False
    along_columns = weight.axis == weight.columns and weight.scale.size == weight.codes.shape[weight.columns]
    return not along_columns


def dequantizes_table(node: ir.Node) -> bool:
    """A Gather from a table that is dequantized as a whole."""
    if node.op_type != "Gather" or (table := node.inputs[0]) is None:
        return False
    producer = table.producer()
    return producer is not None and producer.op_type == "DequantizeLinear" and is_constant(producer.inputs[0])


def dequantizes_alone(node: ir.Node) -> bool:
    """A product of a dequantized weight and a float activation."""
    if weight_dequantize(node) is None:
        return False
    return all(activation_dequantize(value) is None for value in node.inputs[:2])


def is_integer_bias(node: ir.Node) -> bool:
    """A bias that is stored as int32: behind DequantizeLinear, or inside an integer product."""
    if node.op_type in ("QGemm", "QLinearConv"):
        return input_of(node, 6 if node.op_type == "QGemm" else 8) is not None
    if node.op_type != "DequantizeLinear" or (codes := node.inputs[0]) is None:
        return False
    return is_constant(codes) and codes.dtype == ir.DataType.INT32

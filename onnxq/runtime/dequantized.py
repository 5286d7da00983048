"""DequantizeLinear nodes in front of products: where the integers of a Q/DQ graph are."""

from __future__ import annotations

import onnx_ir as ir

_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Conv", "FusedConv", "Gather"})
_PASSAGES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Flatten"})


def weight_dequantize(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear of a constant weight that a product reads, through shape operators."""
    if node.op_type not in _PRODUCTS:
        return None
    for value in node.inputs[: 1 if node.op_type == "Gather" else 2]:
        dequantize = dequantize_of(value)
        if dequantize is not None and is_constant(dequantize.inputs[0]):
            return dequantize
    return None


def dequantize_of(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that gives `value`, through shape operators."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _PASSAGES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is an initializer, a caller's to set or not, or given by a Constant."""
    if value is None:
        return False
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")

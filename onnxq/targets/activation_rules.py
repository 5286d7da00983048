"""Rules about quantized activations."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.ir.activation import find_gelu
from onnxq.ir.norm import Norm, find_norm
from onnxq.targets.quantized import (
    PRODUCTS,
    activation_dequantize,
    array_of,
    input_of,
    is_constant,
    weight_dequantize,
)

_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
_GELUS = frozenset({"Gelu", "FastGelu", "BiasGelu", "QuickGelu"})
_RIGHT = {"MatMul": 1, "MatMulIntegerToFloat": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
"""Place of the right operand of products."""
_PASSAGES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"})


def is_quantized(node: ir.Node) -> bool:
    """A node that quantizes an activation."""
    if node.op_type == "QuantizeLinear":
        return not is_constant(node.inputs[0])
    return node.op_type in ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")


def is_signed(node: ir.Node) -> bool:
    """An activation quantized to int8, but for one that stands where weights do, on a product's right."""
    signed = is_quantized(node) and _codes_of(node) == ir.DataType.INT8
    return signed and not _stands_for_weight(node.outputs[0])


def is_unsigned(node: ir.Node) -> bool:
    """An activation quantized to uint8, which QuantizeLinear gives where no zero point is stated."""
    return is_quantized(node) and _codes_of(node) == ir.DataType.UINT8


def is_asymmetric(node: ir.Node) -> bool:
    """An activation whose zero point is not 0, or is found while running."""
    if not is_quantized(node):
        return False
    if node.op_type != "QuantizeLinear":
        return True
    stated = input_of(node, 2)
    zero = array_of(stated)
    return stated is not None and (zero is None or bool((zero != 0).any()))


def has_scale_per_channel(node: ir.Node) -> bool:
    """An activation with more than one scale along its channels; one for each token is another thing."""
    if node.op_type == "MatMulIntegerToFloat":
        return _is_long(input_of(node, 2))
    touches = node.op_type in ("QuantizeLinear", "DequantizeLinear") and not is_constant(node.inputs[0])
    return touches and _is_long(input_of(node, 1))


def requantizes_product(node: ir.Node) -> bool:
    """A product rounded for the sake of something that is no integer product itself."""
    if node.op_type == "QLinearMatMul":
        return not any(user.op_type.startswith(("QLinear", "QGemm")) for user, _ in node.outputs[0].uses())
    if node.op_type not in ("MatMul", "Gemm") or weight_dequantize(node) is None:
        return False
    rounding = [user for user, _ in node.outputs[0].uses() if user.op_type == "QuantizeLinear"]
    return any(not _feeds_products(user.outputs[0]) for user in rounding)


def quantizes_softmax(node: ir.Node) -> bool:
    """A Softmax between DequantizeLinear and QuantizeLinear, or fused with them."""
    if node.op_type == "QLinearSoftmax":
        return True
    between = node.op_type == "Softmax" and activation_dequantize(node.inputs[0]) is not None
    return between and any(user.op_type == "QuantizeLinear" for user, _ in node.outputs[0].uses())


def quantizes_norm(node: ir.Node) -> bool:
    """A norm that reads rounded numbers."""
    if node.op_type in _NORMS:
        return activation_dequantize(node.inputs[0]) is not None
    norm = find_norm(node)
    return isinstance(norm, Norm) and activation_dequantize(norm.input) is not None


def quantizes_gelu(node: ir.Node) -> bool:
    """A Gelu that reads rounded numbers."""
    if node.op_type in _GELUS:
        return activation_dequantize(node.inputs[0]) is not None
    gelu = find_gelu(node)
    return gelu is not None and activation_dequantize(gelu.input) is not None


def quantizes_residual(node: ir.Node) -> bool:
    """A sum of two activations one of which was rounded."""
    if node.op_type == "QLinearAdd":
        return True
    if node.op_type not in ("Add", "Sum") or any(is_constant(value) for value in node.inputs):
        return False
    return any(activation_dequantize(value) is not None for value in node.inputs)


def _codes_of(node: ir.Node) -> ir.DataType:
    """The integer type that a node quantizes to."""
    if node.op_type != "QuantizeLinear":
        return ir.DataType.UINT8
    zero = input_of(node, 2)
    if zero is not None and zero.dtype is not None:
        return zero.dtype
    return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)


def _is_long(scale: ir.Value | None) -> bool:
    """Whether a scale has more than one number in its last axis."""
    shape = scale.shape if scale is not None else None
    if shape is None or not len(shape):
        return False
    return isinstance(shape[-1], int) and shape[-1] != 1


def _stands_for_weight(codes: ir.Value) -> bool:
    """Whether all that read `codes`, behind moves and DequantizeLinear, are products with it on the right."""
    pending, ends = list(codes.uses()), []
    while pending:
        reader, place = pending.pop()
        if reader.op_type in _PASSAGES or (reader.op_type == "DequantizeLinear" and place == 0):
            pending += list(reader.outputs[0].uses())
        else:
            ends.append(_RIGHT.get(reader.op_type) == place)
    return bool(ends) and all(ends)


def _feeds_products(codes: ir.Value) -> bool:
    """Whether every reader of `codes`, behind DequantizeLinear or not, multiplies them."""
    readers = [user for user, _ in codes.uses()]
    ends: list[ir.Node] = []
    while readers:
        reader = readers.pop()
        if reader.op_type == "DequantizeLinear" or reader.op_type in _PASSAGES:
            readers += [user for user, _ in reader.outputs[0].uses()]
        else:
            ends.append(reader)
    return bool(ends) and all(end.op_type in PRODUCTS or end.op_type.startswith("QLinear") for end in ends)

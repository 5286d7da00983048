"""How an integer product is written down.

The forms, and why these: ONNX Runtime on x86 has one fast integer product, uint8 times int8 (`vpdpbusd`), and
reaches it through MatMulIntegerToFloat, which scales, adds the bias and gives floats in one go. A Q on the
product's output, an int8 activation, or a per-channel activation scale each leave that path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.embedding import Embedding
from onnxq.ir.linear import Linear
from onnxq.passes.quantize.activation_emission import QuantizedActivation, quantize_tensor, quantize_tokens
from onnxq.passes.quantize.ranges import PerToken, QuantParams
from onnxq.passes.quantize.tied import share_codes
from onnxq.passes.quantize.weights import QuantizedWeight

MICROSOFT = "com.microsoft"


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A linear in integers, to be written in the place of the float one.

    Attributes:
        linear: The float one.
        weight: Codes and scales.
        bias: Any float type [N]; None without one.
        tables: Embeddings that are to read the weight's codes.
    """

    linear: Linear
    weight: QuantizedWeight
    bias: np.ndarray | None
    tables: Sequence[Embedding] = ()

    @property
    def node(self) -> ir.Node:
        """The product in float."""
        return self.linear.node

    @property
    def label(self) -> str:
        """What new values are named after."""
        return self.linear.node.name or str(self.linear.output.name)


def emit_kernel(layer: QuantizedLinear, params: QuantParams, edit: Edit) -> None:
    """QuantizeLinear, then MatMulIntegerToFloat with the bias inside."""
    activation = quantize_tensor(layer.linear.activation, params, layer.node, edit)
    product = _product(layer, [*_operands(layer, activation, edit), _bias(layer, edit)], edit)
    edit.take_over(layer.linear.output, product)


def emit_per_token(layer: QuantizedLinear, how: PerToken, edit: Edit) -> None:
    """One symmetric scale for each token, found while running: codes centred on 128, or on 0 with a sign.

    The bias is added behind the product: inside, ONNX Runtime would multiply it by the token's scale.
    """
    activation = quantize_tokens(layer.linear.activation, how, layer.node, edit)
    product = _product(layer, [*_operands(layer, activation, edit), None], edit)
    added = _bias(layer, edit)
    if added is not None:
        names = [f"{layer.label}_sum"]
        (product,) = edit.insert("Add", [product, added], before=layer.node, names=names)
    edit.take_over(layer.linear.output, product)


def emit_qdq(layer: QuantizedLinear, params: QuantParams, edit: Edit, *, float_bias: bool = False) -> None:
    """The same numbers as QuantizeLinear, DequantizeLinear and MatMul, which every runtime reads.

    ONNX Runtime turns MatMul and Add on two axes, or on fixed shapes, into a Gemm, which runs as integers
    only if the bias is quantized too, and never once a Relu behind it is fused; it does not look for a Sum.
    """
    node, activation = layer.node, layer.linear.activation
    (rows,) = edit.insert(
        "DequantizeLinear",
        quantize_tensor(activation, params, node, edit),
        before=node,
        names=[f"{activation.name}_dequantized"],
        like=activation,
    )
    columns = _dequantized_weight(layer, edit)
    (product,) = edit.insert("MatMul", [rows, columns], before=node, names=[f"{layer.label}_product"])
    if layer.bias is not None:
        gemm = _becomes_gemm(layer.linear) and not float_bias
        fused = gemm and any(user.op_type == "Relu" for user, _ in layer.linear.output.uses())
        integer = gemm and not fused
        added = _integer_bias(layer, layer.bias, params, edit) if integer else _bias(layer, edit)
        op_type = "Sum" if fused else "Add"
        (product,) = edit.insert(op_type, [product, added], before=node, names=[f"{layer.label}_sum"])
    edit.take_over(layer.linear.output, product)


def scale_for_bias(bias: np.ndarray | None, params: QuantParams) -> np.ndarray | float:
    """The least scale of each column that lets its bias [N] fit into int32, in steps of both scales.

    It raises only the scale of a column that hardly adds anything to its bias, such as a dead one.
    """
    return 0.0 if bias is None else np.abs(bias.astype(np.float64)) / (params.scale * 2.0**30)


def _dequantized_weight(layer: QuantizedLinear, edit: Edit) -> ir.Value:
    weight, label, node = layer.weight, layer.label, layer.node
    scale = edit.constant(weight.scale, f"{label}_scale", near=node)
    zeros = edit.constant(np.zeros(weight.scale.shape, np.int8), f"{label}_zero_point", near=node)
    codes = edit.constant(weight.codes, f"{label}_int8", near=node)
    names = [f"{label}_dequantized"]
    return edit.insert("DequantizeLinear", [codes, scale, zeros], {"axis": 1}, before=node, names=names)[0]


def _bias(layer: QuantizedLinear, edit: Edit) -> ir.Value | None:
    if layer.bias is None:
        return None
    return edit.constant(layer.bias.astype(np.float32), f"{layer.label}_bias", near=layer.node)


def _becomes_gemm(linear: Linear) -> bool:
    """Whether ONNX Runtime may build a Gemm of MatMul and Add."""
    shape = linear.activation.shape
    return shape is None or len(shape) == 2 or all(isinstance(dim, int) for dim in shape)


def _integer_bias(layer: QuantizedLinear, bias: np.ndarray, params: QuantParams, edit: Edit) -> ir.Value:
    """The bias as int32 and DequantizeLinear, in steps of both scales."""
    scale = layer.weight.scale * params.scale
    limits = np.iinfo(np.int32)
    codes = np.clip(np.rint(bias.astype(np.float64) / scale), limits.min, limits.max)
    label, node = layer.label, layer.node
    parts = [
        edit.constant(codes.astype(np.int32), f"{label}_bias_int32", near=node),
        edit.constant(scale.astype(np.float32), f"{label}_bias_scale", near=node),
        edit.constant(np.zeros(scale.shape, np.int32), f"{label}_bias_zero_point", near=node),
    ]
    names = [f"{label}_bias_dequantized"]
    return edit.insert("DequantizeLinear", parts, {"axis": 0}, before=node, names=names)[0]


def _operands(layer: QuantizedLinear, activation: QuantizedActivation, edit: Edit) -> list[ir.Value]:
    """Inputs of the integer product, all but the bias."""
    node, label, weight = layer.node, layer.label, layer.weight
    if layer.tables:
        codes, scales = share_codes(layer.linear, layer.tables, weight, edit)
    else:
        codes = edit.constant(weight.codes, f"{label}_int8", near=node)
        scales = edit.constant(weight.scale, f"{label}_scale", near=node)
    zero = edit.constant(np.zeros((), np.int8), f"{label}_zero_point", near=node)
    return [activation.codes, codes, activation.scale, scales, activation.zero_point, zero]


def _product(layer: QuantizedLinear, inputs: Sequence[ir.Value | None], edit: Edit) -> ir.Value:
    names = [f"{layer.label}_product"]
    return edit.insert("MatMulIntegerToFloat", inputs, domain=MICROSOFT, before=layer.node, names=names)[0]

"""How an integer convolution is written down: ONNX Runtime's own operators, channels last."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.edit import label_of
from onnxq.ir.convolution import Convolution
from onnxq.ir.walk import constant_of, is_op
from onnxq.passes.quantize.emission import MICROSOFT, scale_for_bias
from onnxq.passes.quantize.ranges import QuantParams
from onnxq.passes.quantize.weights import QuantizedWeight, quantize_weight

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def emit_convolution(
    found: Convolution, params: QuantParams, given: QuantParams, result: ir.Value, bits: int, edit: Edit
) -> None:
    """Quantize, Transpose, QLinearConv, Transpose, DequantizeLinear in the place of all up to `result`."""
    node, label = found.node, label_of(found.node)
    codes, scale, zero = _codes(found, params, edit)
    rows = found.weight.reshape(found.columns, -1)
    weight = quantize_weight(rows.T, bits, least_scale=scale_for_bias(found.bias, params))
    made_scale = edit.constant(np.asarray(given.scale), f"{result.name}_scale", near=node)
    made_zero = edit.constant(np.asarray(given.zero_point), f"{result.name}_zero_point", near=node)
    packed = np.ascontiguousarray(weight.codes.T).reshape(found.weight.shape)
    inputs: list[ir.Value | None] = [
        codes,
        scale,
        zero,
        edit.constant(packed, f"{label}_int8", near=node),
        edit.constant(weight.scale, f"{label}_scale", near=node),
        edit.constant(np.zeros(found.columns, np.int8), f"{label}_zero_point", near=node),
        made_scale,
        made_zero,
    ]
    if found.bias is not None:
        inputs.append(edit.constant(_integer_bias(found, params, weight), f"{label}_int32", near=node))
    attributes = {
        "channels_last": 1,
        "kernel_shape": found.kernel,
        "strides": found.strides,
        "dilations": found.dilations,
        "pads": (*found.begins, *found.ends),
    }
    (made,) = edit.insert(
        "QLinearConv", inputs, attributes, domain=MICROSOFT, before=node, names=[f"{label}_codes"]
    )
    first = _transposed(made, _FIRST, f"{label}_first", node, edit)
    for value, like in ((made, _permuted(found.output, _LAST)), (first, found.output.shape)):
        value.type, value.shape = ir.TensorType(ir.DataType.UINT8), None if like is None else like.copy()
    (floats,) = edit.insert(
        "DequantizeLinear",
        [first, made_scale, made_zero],
        before=node,
        names=[f"{label}_floats"],
        like=result,
    )
    edit.take_over(result, floats)


def emit_product(found: Convolution, params: QuantParams, bits: int, edit: Edit) -> None:
    """Quantize, Transpose, MatMulIntegerToFloat, Transpose in the place of a 1x1 convolution."""
    node, label = found.node, label_of(found.node)
    codes, scale, zero = _codes(found, params, edit)
    weight = quantize_weight(found.weight.reshape(found.columns, found.channels).T, bits)
    bias = found.bias
    inputs: list[ir.Value | None] = [
        codes,
        edit.constant(weight.codes, f"{label}_int8", near=node),
        scale,
        edit.constant(weight.scale, f"{label}_scale", near=node),
        zero,
        edit.constant(np.zeros((), np.int8), f"{label}_zero_point", near=node),
        None if bias is None else edit.constant(bias.astype(np.float32), f"{label}_bias", near=node),
    ]
    (made,) = edit.insert(
        "MatMulIntegerToFloat", inputs, domain=MICROSOFT, before=node, names=[f"{label}_product"]
    )
    made.type, made.shape = found.output.type, _permuted(found.output, _LAST)
    first = _transposed(made, _FIRST, f"{label}_first", node, edit)
    edit.take_over(found.output, first)


def _codes(found: Convolution, params: QuantParams, edit: Edit) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The codes of the input, channels last, their scale and zero point; made once for all that read them."""
    activation, node = found.activation, found.node
    for user, index in activation.uses():
        if index == 0 and user.graph is node.graph and _is_ours(user, params, edit.owner):
            scale, zero = user.inputs[1], user.inputs[2]
            for other, _ in user.outputs[0].uses():
                ours = other.metadata_props.get("onnxq.pass") == edit.owner and is_op(other, "Transpose")
                if ours and other.graph is node.graph and scale is not None and zero is not None:
                    return other.outputs[0], scale, zero
    name = str(activation.name)
    scale = edit.constant(np.asarray(params.scale), f"{name}_scale", near=node)
    zero = edit.constant(np.asarray(params.zero_point), f"{name}_zero_point", near=node)
    (codes,) = edit.insert(
        "QuantizeLinear", [activation, scale, zero], before=node, names=[f"{name}_quantized"], like=activation
    )
    codes.type = ir.TensorType(ir.DataType.UINT8)
    last = _transposed(codes, _LAST, f"{name}_last", node, edit)
    last.type, last.shape = codes.type, _permuted(activation, _LAST)
    return last, scale, zero


def _is_ours(node: ir.Node, params: QuantParams, owner: str) -> bool:
    if not is_op(node, "QuantizeLinear") or node.metadata_props.get("onnxq.pass") != owner:
        return False
    scale, zero = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    if scale is None or zero is None:
        return False
    return bool(scale.item() == params.scale and zero.item() == params.zero_point)


def _integer_bias(found: Convolution, params: QuantParams, weight: QuantizedWeight) -> np.ndarray:
    """The bias in steps of both scales."""
    steps = weight.scale.astype(np.float64) * float(params.scale)
    bias = np.zeros(found.columns) if found.bias is None else found.bias.astype(np.float64)
    rounded: np.ndarray = np.rint(bias / steps).astype(np.int32)
    return rounded


def _transposed(value: ir.Value, order: tuple[int, ...], name: str, near: ir.Node, edit: Edit) -> ir.Value:
    return edit.insert("Transpose", [value], {"perm": order}, before=near, names=[name])[0]


def _permuted(value: ir.Value, order: tuple[int, ...]) -> ir.Shape | None:
    shape = value.shape
    return None if shape is None or len(shape) != len(order) else ir.Shape([shape[axis] for axis in order])

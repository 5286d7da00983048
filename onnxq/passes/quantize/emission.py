"""How an integer product is written down.

The forms, and why these: ONNX Runtime on x86 has one fast integer product, uint8 times int8 (`vpdpbusd`), and
reaches it through MatMulIntegerToFloat, which scales, adds the bias and gives floats in one go. A Q on the
product's output, an int8 activation, or a per-channel activation scale each leave that path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.embedding import Embedding
from onnxq.ir.linear import Linear
from onnxq.ir.walk import constant_of, producer
from onnxq.passes.quantize.ranges import LEAST_TOKEN_SCALE, PerToken, QuantParams
from onnxq.passes.quantize.tied import share_codes
from onnxq.passes.quantize.weights import QuantizedWeight

MICROSOFT = "com.microsoft"
AXES_AS_INPUT = 18  # the opset in which ReduceMax took its axes as an input
_MIDDLE = np.uint8(128)


def emit_kernel(
    linear: Linear,
    params: QuantParams,
    weight: QuantizedWeight,
    bias: np.ndarray | None,
    edit: Edit,
    tables: Sequence[Embedding] = (),
) -> None:
    """QuantizeLinear, then MatMulIntegerToFloat with the bias inside; `tables` read the weight's codes."""
    codes, scale, zero = _quantized(linear.activation, params, linear.node, edit)
    inputs = [codes, *_operands(linear, scale, zero, weight, tables, edit), _bias(linear, bias, edit)]
    edit.take_over(linear.output, _product(linear, inputs, edit))


def emit_per_token(
    linear: Linear,
    how: PerToken,
    weight: QuantizedWeight,
    bias: np.ndarray | None,
    edit: Edit,
    tables: Sequence[Embedding] = (),
) -> None:
    """One symmetric scale for each token, found while running: codes centred on 128, or on 0 with a sign.

    The bias is added behind the product: inside, ONNX Runtime would multiply it by the token's scale.
    """
    codes, scale, zero = _quantized_by_token(linear.activation, how, linear.node, edit)
    product = _product(linear, [codes, *_operands(linear, scale, zero, weight, tables, edit), None], edit)
    added = _bias(linear, bias, edit)
    if added is not None:
        names = [f"{_label(linear)}_sum"]
        (product,) = edit.insert("Add", [product, added], before=linear.node, names=names)
    edit.take_over(linear.output, product)


def emit_qdq(
    linear: Linear,
    params: QuantParams,
    weight: QuantizedWeight,
    bias: np.ndarray | None,
    edit: Edit,
    *,
    float_bias: bool = False,
) -> None:
    """The same numbers as QuantizeLinear, DequantizeLinear and MatMul, which every runtime reads.

    ONNX Runtime turns MatMul and Add on two axes, or on fixed shapes, into a Gemm, which runs as integers
    only if the bias is quantized too, and never once a Relu behind it is fused; it does not look for a Sum.
    """
    node = linear.node
    codes, scale, zero = _quantized(linear.activation, params, node, edit)
    label = _label(linear)
    (rows,) = edit.insert(
        "DequantizeLinear",
        [codes, scale, zero],
        before=node,
        names=[f"{linear.activation.name}_dequantized"],
        like=linear.activation,
    )
    column_scale = edit.constant(weight.scale, f"{label}_scale", near=node)
    zeros = edit.constant(np.zeros(weight.scale.shape, np.int8), f"{label}_zero_point", near=node)
    packed = edit.constant(weight.codes, f"{label}_int8", near=node)
    (columns,) = edit.insert(
        "DequantizeLinear",
        [packed, column_scale, zeros],
        {"axis": 1},
        before=node,
        names=[f"{label}_dequantized"],
    )
    (product,) = edit.insert("MatMul", [rows, columns], before=node, names=[f"{label}_product"])
    if bias is not None:
        gemm = _becomes_gemm(linear) and not float_bias
        fused = gemm and any(user.op_type == "Relu" for user, _ in linear.output.uses())
        integer = gemm and not fused
        added = _integer_bias(linear, params, weight, bias, edit) if integer else _bias(linear, bias, edit)
        op_type = "Sum" if fused else "Add"
        (product,) = edit.insert(op_type, [product, added], before=node, names=[f"{label}_sum"])
    edit.take_over(linear.output, product)


def params_of(activation: ir.Value, bits: int, owner: str) -> list[QuantParams]:
    """What `owner` already quantizes `activation` with, in codes of `bits`."""
    return [found for _, found in _quantizers(activation, bits, owner)]


def _quantizers(activation: ir.Value, bits: int, owner: str) -> list[tuple[ir.Node, QuantParams]]:
    """QuantizeLinear nodes that `owner` put behind `activation`, behind a Clip for codes of fewer bits."""
    source, found = [activation], []
    if bits < 8:
        clips = (user for user, _ in activation.uses() if user.op_type == "Clip" and _is_ours(user, owner))
        source = [clip.outputs[0] for clip in clips]
    for user, index in (use for value in source for use in value.uses()):
        if index == 0 and user.op_type == "QuantizeLinear" and _is_ours(user, owner):
            scale, zero = constant_of(user.inputs[1]), constant_of(user.inputs[2])
            if scale is not None and zero is not None:
                kind = np.int8 if zero.dtype == np.int8 else np.uint8
                found.append((user, QuantParams(np.float32(scale.item()), kind(zero.item()), bits)))
    return found


def _quantized(
    activation: ir.Value, params: QuantParams, near: ir.Node, edit: Edit
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The codes of `activation`, their scale and zero point; quantized once for all linears that read it."""
    for node, found in _quantizers(activation, params.bits, edit.owner):
        same = found == params and found.signed == params.signed
        scale, zero = node.inputs[1], node.inputs[2]
        if same and node.graph is near.graph and scale is not None and zero is not None:
            return node.outputs[0], scale, zero
    name = str(activation.name)
    scale = edit.constant(np.asarray(params.scale), f"{name}_scale", near=near)
    zero = edit.constant(np.asarray(params.zero_point), f"{name}_zero_point", near=near)
    source = activation
    if params.bits < 8:  # the type has more codes than are wanted
        ends = [
            edit.constant(np.asarray(np.float32(end)), f"{name}_{what}", near=near)
            for end, what in ((params.low, "low"), (params.high, "high"))
        ]
        (source,) = edit.insert("Clip", [activation, *ends], before=near, names=[f"{name}_clipped"])
    (codes,) = edit.insert("QuantizeLinear", [source, scale, zero], before=near, names=[f"{name}_quantized"])
    return codes, scale, zero


def _quantized_by_token(
    activation: ir.Value, how: PerToken, near: ir.Node, edit: Edit
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The codes of `activation`, the scale of each token and the zero point; once for all linears."""
    levels = (1 << (how.bits - 1)) - 1
    for user, _ in activation.uses():
        inverse = producer(user.inputs[1], "Reciprocal") if user.op_type == "Mul" else None
        if inverse is not None and user.graph is near.graph and _is_ours(user, edit.owner):
            quantize, scale = next(iter(user.outputs[0].uses())).node, inverse.inputs[0]
            if scale is not None and (zero := quantize.inputs[2]) is not None:
                return quantize.outputs[0], scale, zero
    name = str(activation.name)

    def constant(value: np.generic | np.ndarray, what: str) -> ir.Value:
        return edit.constant(np.asarray(value), f"{name}_{what}", near=near)

    def step(
        op_type: str, inputs: list[ir.Value], what: str, attributes: dict[str, object] | None = None
    ) -> ir.Value:
        return edit.insert(op_type, inputs, attributes, before=near, names=[f"{name}_{what}"])[0]

    axes: list[ir.Value] = []
    along: dict[str, object] = {"axes": [-1], "keepdims": 1}
    if edit.model.opset_imports.get("", 1) >= AXES_AS_INPUT:
        axes, along = [constant(np.array([-1], np.int64), "last_axis")], {"keepdims": 1}
    # Two reductions take less time than the magnitude of each element, and one division than one for each.
    highest, lowest = (
        step(f"Reduce{end}", [activation, *axes], end.lower(), along) for end in ("Max", "Min")
    )
    least = constant(LEAST_TOKEN_SCALE * np.float32(levels), "least_reach")
    reach = step("Max", [highest, step("Neg", [lowest], "depth"), least], "reach")
    scale = step("Mul", [reach, constant(np.float32(1 / levels), "per_level")], "token_scale")
    even = step("Mul", [activation, step("Reciprocal", [scale], "inverse")], "even")
    zero = constant(np.int8(0) if how.signed else _MIDDLE, "middle")
    return step("QuantizeLinear", [even, constant(np.float32(1), "one"), zero], "codes"), scale, zero


def _is_ours(node: ir.Node, owner: str) -> bool:
    return node.metadata_props.get("onnxq.pass") == owner


def _bias(linear: Linear, bias: np.ndarray | None, edit: Edit) -> ir.Value | None:
    if bias is None:
        return None
    return edit.constant(bias.astype(np.float32), f"{_label(linear)}_bias", near=linear.node)


def scale_for_bias(linear: Linear, params: QuantParams) -> np.ndarray | float:
    """The least scale of each column that lets its bias fit into int32, in steps of both scales.

    It raises only the scale of a column that hardly adds anything to its bias, such as a dead one.
    """
    return 0.0 if linear.bias is None else np.abs(linear.bias.astype(np.float64)) / (params.scale * 2.0**30)


def _becomes_gemm(linear: Linear) -> bool:
    """Whether ONNX Runtime may build a Gemm of MatMul and Add."""
    shape = linear.activation.shape
    return shape is None or len(shape) == 2 or all(isinstance(dim, int) for dim in shape)


def _integer_bias(
    linear: Linear, params: QuantParams, weight: QuantizedWeight, bias: np.ndarray, edit: Edit
) -> ir.Value:
    """The bias as int32 and DequantizeLinear, in steps of both scales."""
    scale = weight.scale * params.scale
    limits = np.iinfo(np.int32)
    codes = np.clip(np.rint(bias.astype(np.float64) / scale), limits.min, limits.max)
    label = _label(linear)
    parts = [
        edit.constant(codes.astype(np.int32), f"{label}_bias_int32", near=linear.node),
        edit.constant(scale.astype(np.float32), f"{label}_bias_scale", near=linear.node),
        edit.constant(np.zeros(scale.shape, np.int32), f"{label}_bias_zero_point", near=linear.node),
    ]
    return edit.insert(
        "DequantizeLinear", parts, {"axis": 0}, before=linear.node, names=[f"{label}_bias_dequantized"]
    )[0]


def _operands(
    linear: Linear,
    scale: ir.Value,
    zero: ir.Value,
    weight: QuantizedWeight,
    tables: Sequence[Embedding],
    edit: Edit,
) -> list[ir.Value]:
    """Inputs 1 to 5 of the integer product."""
    node, label = linear.node, _label(linear)
    if tables:
        codes, scales = share_codes(linear, tables, weight, edit)
    else:
        codes = edit.constant(weight.codes, f"{label}_int8", near=node)
        scales = edit.constant(weight.scale, f"{label}_scale", near=node)
    return [
        codes,
        scale,
        scales,
        zero,
        edit.constant(np.zeros((), np.int8), f"{label}_zero_point", near=node),
    ]


def _product(linear: Linear, inputs: list[ir.Value | None], edit: Edit) -> ir.Value:
    names = [f"{_label(linear)}_product"]
    return edit.insert("MatMulIntegerToFloat", inputs, domain=MICROSOFT, before=linear.node, names=names)[0]


def _label(linear: Linear) -> str:
    return linear.node.name or str(linear.output.name)

"""How the activation in front of an integer product is written down, once for all linears that read it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.walk import constant_of, producer
from onnxq.passes.quantize.ranges import LEAST_TOKEN_SCALE, PerToken, QuantParams

_AXES_AS_INPUT = 18  # the opset in which ReduceMax took its axes as an input
_MIDDLE = np.uint8(128)


class QuantizedActivation(NamedTuple):
    """The values of a graph that stand for an activation [..., K] in integers.

    Attributes:
        codes: uint8 or int8 [..., K].
        scale: float32, a scalar, or one for each token [..., 1].
        zero_point: A scalar of the type of the codes.
    """

    codes: ir.Value
    scale: ir.Value
    zero_point: ir.Value


def params_of(activation: ir.Value, bits: int, owner: str) -> list[QuantParams]:
    """What `owner` already quantizes `activation` with, in codes of `bits`."""
    return [found for _, found in _quantizers(activation, bits, owner)]


def quantize_tensor(
    activation: ir.Value, params: QuantParams, near: ir.Node, edit: Edit
) -> QuantizedActivation:
    """`activation` with one scale, in front of the node `near`; once for all linears that read it."""
    for node, found in _quantizers(activation, params.bits, edit.owner):
        same = found == params and found.signed == params.signed
        scale, zero = node.inputs[1], node.inputs[2]
        if same and node.graph is near.graph and scale is not None and zero is not None:
            return QuantizedActivation(node.outputs[0], scale, zero)
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
    return QuantizedActivation(codes, scale, zero)


def quantize_tokens(activation: ir.Value, how: PerToken, near: ir.Node, edit: Edit) -> QuantizedActivation:
    """`activation` with a scale for each token, in front of the node `near`; once for all linears."""
    levels = (1 << (how.bits - 1)) - 1
    for user, _ in activation.uses():
        inverse = producer(user.inputs[1], "Reciprocal") if user.op_type == "Mul" else None
        if inverse is not None and user.graph is near.graph and _is_ours(user, edit.owner):
            quantize, scale = next(iter(user.outputs[0].uses())).node, inverse.inputs[0]
            if scale is not None and (zero := quantize.inputs[2]) is not None:
                return QuantizedActivation(quantize.outputs[0], scale, zero)
    name = str(activation.name)

    def constant(value: np.generic | np.ndarray, what: str) -> ir.Value:
        return edit.constant(np.asarray(value), f"{name}_{what}", near=near)

    def step(
        op_type: str, inputs: list[ir.Value], what: str, attributes: dict[str, object] | None = None
    ) -> ir.Value:
        return edit.insert(op_type, inputs, attributes, before=near, names=[f"{name}_{what}"])[0]

    axes: list[ir.Value] = []
    along: dict[str, object] = {"axes": [-1], "keepdims": 1}
    if edit.model.opset_imports.get("", 1) >= _AXES_AS_INPUT:
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
    codes = step("QuantizeLinear", [even, constant(np.float32(1), "one"), zero], "codes")
    return QuantizedActivation(codes, scale, zero)


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


def _is_ours(node: ir.Node, owner: str) -> bool:
    return node.metadata_props.get("onnxq.pass") == owner

"""Operators that reduce axes or normalise over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as nn

from onnxq.learn.operators.call import Call, Rule, Tensor

Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def reduction(function: Reduction, before: Callable[[Tensor], Tensor] | None = None) -> Rule:
    """The rule of a Reduce operator; `before` is applied to each element, also where no axis is reduced."""

    def rule(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        x = before(x) if before is not None else x
        chosen = call.axes(axes)
        if not chosen and call.integer("noop_with_empty_axes", 0):
            return x
        along = tuple(axis % x.dim() for axis in chosen) if chosen else tuple(range(x.dim()))
        return function(x, along, bool(call.integer("keepdims", 1)))

    return rule


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _total(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype) if axes else x


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep) if x.is_floating_point() else _total(x, axes, keep) / x[()].numel()


def _largest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amax(axes, keepdim=keep)


def _least(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amin(axes, keepdim=keep)


def softmax(call: Call, x: Tensor) -> Tensor:
    """Softmax and LogSoftmax; before opset 13 over all axes from one on."""
    function = nn.log_softmax if call.node.op_type == "LogSoftmax" else nn.softmax
    if call.opset >= 13:
        return function(x, call.integer("axis", -1))
    return function(x.flatten(call.integer("axis", 1) % x.dim()), -1).reshape(x.shape)


def layer_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Any:
    """LayerNormalization over the last axes."""
    epsilon, axis = call.number("epsilon", 1e-5), call.integer("axis", -1) % x.dim()
    sizes = x.shape[axis:]
    if len(call.node.outputs) == 1 and scale.shape == sizes and (shift is None or shift.shape == sizes):
        return nn.layer_norm(x, sizes, scale, shift, epsilon)
    axes = tuple(range(axis, x.dim()))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)
    y = (x - mean) * inverse * scale
    return (y if shift is None else y + shift, mean, inverse)[: len(call.node.outputs)]


def rms_norm(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """RMSNormalization over the last axes."""
    axes = tuple(range(call.integer("axis", -1) % x.dim(), x.dim()))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    inverse = torch.rsqrt(wide.square().mean(axes, keepdim=True) + call.number("epsilon", 1e-5))
    return (wide * inverse).to(x.dtype) * scale


def batch_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """BatchNormalization of inference."""
    if call.integer("training_mode", 0):
        raise call.refuse("in training mode")
    return nn.batch_norm(x, mean, variance, scale, shift, False, 0.0, call.number("epsilon", 1e-5))


def instance_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """InstanceNormalization."""
    return nn.instance_norm(x, None, None, scale, shift, True, 0.0, call.number("epsilon", 1e-5))


def group_norm(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """GroupNormalization; before opset 21 with one scale for each group."""
    groups = call.integer("num_groups", 1)
    if call.opset < 21:
        scale, shift = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, shift))
    return nn.group_norm(x, groups, scale, shift, call.number("epsilon", 1e-5))


def unit_norm(call: Call, x: Tensor) -> Tensor:
    """LpNormalization; a vector of zeros stays one."""
    length = torch.linalg.vector_norm(x, call.integer("p", 2), call.integer("axis", -1), keepdim=True)
    return x / torch.where(length == 0, torch.ones_like(length), length)


def _over_positions(function: Reduction) -> Rule:
    return lambda call, x: function(x, tuple(range(2, x.dim())), True)


REDUCTIONS: Mapping[str, Rule] = {
    "BatchNormalization": batch_norm,
    "GlobalAveragePool": _over_positions(_mean),
    "GlobalMaxPool": _over_positions(_largest),
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "LogSoftmax": softmax,
    "LpNormalization": unit_norm,
    "RMSNormalization": rms_norm,
    "ReduceL1": reduction(_total, torch.abs),
    "ReduceL2": reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep)),
    "ReduceLogSumExp": reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": reduction(_largest),
    "ReduceMean": reduction(_mean),
    "ReduceMin": reduction(_least),
    "ReduceProd": reduction(_product),
    "ReduceSum": reduction(_total),
    "ReduceSumSquare": reduction(_total, torch.square),
    "SimplifiedLayerNormalization": rms_norm,
    "Softmax": softmax,
}

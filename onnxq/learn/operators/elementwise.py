"""Operators that treat each element by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as nn

from onnxq.learn.operators.call import Call, Rule, Tensor, torch_type

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def plain(function: Callable[..., Any]) -> Rule:
    """A rule for an operator without attributes."""

    def rule(call: Call, *inputs: Tensor) -> Any:
        return function(*inputs)

    return rule


def fold(function: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    """A rule for an operator of any number of inputs."""

    def rule(call: Call, *inputs: Tensor) -> Tensor:
        return functools.reduce(function, inputs)

    return rule


def cast(call: Call, x: Tensor) -> Tensor:
    """Cast; an element type that torch lacks is refused."""
    wanted = ir.DataType(call.integer("to", 0))
    dtype = torch_type(wanted)
    if dtype is None:
        raise call.refuse(f"to {wanted.name}")
    return x.to(dtype)


def divide(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Div; integers are cut towards zero."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def modulo(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Mod."""
    return torch.fmod(a, b) if call.integer("fmod", 0) else torch.remainder(a, b)


def power(call: Call, base: Tensor, exponent: Tensor) -> Tensor:
    """Pow, in the type of the base; a constant exponent as a number, which is faster and differentiable."""
    if exponent.numel() == 1 and not exponent.requires_grad and exponent.dim() <= base.dim():
        return torch.pow(base, exponent.item()).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Clip, with bounds as inputs or, before opset 11, as attributes."""
    if call.opset < 11:
        return torch.clamp(x, call.number("min", float("-inf")), call.number("max", float("inf")))
    if low is not None:
        x = torch.maximum(x, low)
    return torch.minimum(x, high) if high is not None else x


def is_infinite(call: Call, x: Tensor) -> Tensor:
    """IsInf."""
    positive = torch.isposinf(x) if call.integer("detect_positive", 1) else torch.zeros_like(x, dtype=bool)
    return positive | torch.isneginf(x) if call.integer("detect_negative", 1) else positive


def parametric_relu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """PRelu."""
    return torch.where(x < 0, slope * x, x)


def exponential_unit(call: Call, x: Tensor) -> Tensor:
    """Elu."""
    return torch.where(x < 0, call.number("alpha", 1.0) * torch.expm1(torch.clamp(x, max=0)), x)


def continuous_unit(call: Call, x: Tensor) -> Tensor:
    """Celu."""
    alpha = call.number("alpha", 1.0)
    return torch.where(x < 0, alpha * torch.expm1(torch.clamp(x, max=0) / alpha), x)


def scaled_unit(call: Call, x: Tensor) -> Tensor:
    """Selu."""
    alpha, gamma = call.number("alpha", _SELU_ALPHA), call.number("gamma", _SELU_GAMMA)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """HardSigmoid."""
    return torch.clamp(call.number("alpha", 0.2) * x + call.number("beta", 0.5), 0, 1)


def gelu(call: Call, x: Tensor) -> Tensor:
    """Gelu, by the error function or by tanh."""
    return nn.gelu(x, approximate=call.text("approximate", "none"))


def dropout(call: Call, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Any:
    """Dropout of inference: nothing is dropped."""
    if training is not None and bool(training):
        raise call.refuse("in training mode")
    return (x, torch.ones_like(x, dtype=torch.bool))[: len(call.node.outputs)]


ELEMENTWISE: Mapping[str, Rule] = {
    "Abs": plain(torch.abs),
    "Acos": plain(torch.acos),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Asin": plain(torch.asin),
    "Atan": plain(torch.atan),
    "Cast": cast,
    "CastLike": plain(lambda x, like: x.to(like.dtype)),
    "Ceil": plain(torch.ceil),
    "Celu": continuous_unit,
    "Clip": clip,
    "Cos": plain(torch.cos),
    "Div": divide,
    "Dropout": dropout,
    "Elu": exponential_unit,
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gelu": gelu,
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": plain(nn.hardswish),
    "Identity": plain(lambda x: x),
    "IsInf": is_infinite,
    "IsNaN": plain(torch.isnan),
    "LeakyRelu": lambda call, x: nn.leaky_relu(x, call.number("alpha", 0.01)),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "Max": fold(torch.maximum),
    "Mean": lambda call, *inputs: functools.reduce(torch.add, inputs) / len(inputs),
    "Min": fold(torch.minimum),
    "Mish": plain(nn.mish),
    "Mod": modulo,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": parametric_relu,
    "Pow": power,
    "Reciprocal": plain(torch.reciprocal),
    "Relu": plain(torch.relu),
    "Round": plain(torch.round),
    "Selu": scaled_unit,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Softplus": plain(nn.softplus),
    "Softsign": plain(nn.softsign),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": fold(torch.add),
    "Swish": lambda call, x: x * torch.sigmoid(call.number("alpha", 1.0) * x),
    "Tan": plain(torch.tan),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": lambda call, x: torch.where(x > call.number("alpha", 1.0), x, torch.zeros_like(x)),
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
}

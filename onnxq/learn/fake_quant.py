"""Quantization imitated in floats, with gradients for what is quantized, its scale and its zero point.

    q = clamp(round(x / s) + z, 0, top)        y = (q - z) * s

Rounding passes the gradient of x straight through where nothing is clipped. The step size learns from the
rounding error inside, and from the distance of the bound outside; the zero point from what is clipped:

    dy/ds = round(x / s) - x / s, or -z, or top - z          dy/dz = 0, or -s where clipped

The forward numbers are, bit for bit, those of QuantizeLinear and DequantizeLinear.

Source: LSQ (arXiv 1902.08153), LSQ+ (arXiv 2004.09576).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from onnxq.learn.operators import Tensor

LEAST_SCALE = float(np.finfo(np.float32).tiny)


class _Rounding(torch.autograd.Function):  # type: ignore[misc]
    """Uniform quantization to 0..top with learned step and zero point, both scalars."""

    @staticmethod
    def forward(context, x, scale, zero, top, factor):  # type: ignore[no-untyped-def]
        codes = torch.round(x / scale) + zero
        inside = (codes >= 0) & (codes <= top)
        shifted = codes.clamp_(0, top).sub_(zero)
        context.save_for_backward(x, scale, shifted, inside)
        context.factor = factor
        return shifted * scale

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def]
        x, scale, shifted, inside = context.saved_tensors
        passed = gradient * inside
        steps = zeros = None
        if context.needs_input_grad[1]:
            steps = ((gradient * shifted).sum() - (passed * x).sum() / scale) * context.factor
        if context.needs_input_grad[2]:
            zeros = (passed - gradient).sum() * scale * context.factor
        return passed, steps, zeros, None, None


@dataclass(frozen=True, eq=False)
class Step:
    """A uniform quantization of a whole tensor to `bits` bits, learnable.

    Attributes:
        scale: The step size, a scalar.
        zero: The zero point, a scalar that is rounded and held inside the codes where it is used.
        bits: 2 to 8.
    """

    scale: Tensor
    zero: Tensor
    bits: int

    @classmethod
    def holding(cls, low: float, high: float, bits: int = 8) -> Step:
        """The finest grid that holds [low, high] and zero; the scale is 1 for a tensor of zeros."""
        low, high, top = min(low, 0.0), max(high, 0.0), 2**bits - 1
        scale = np.float32((high - low) / top)
        if not scale > LEAST_SCALE:
            return cls(torch.tensor(1.0), torch.tensor(0.0), bits)
        zero = float(np.clip(np.rint(-low / float(scale)), 0, top))
        return cls(torch.tensor(float(scale)), torch.tensor(zero), bits)

    @property
    def top(self) -> int:
        """The largest code."""
        return int(2**self.bits) - 1

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest number that the codes stand for."""
        scale, zero = float(self.scale.detach().abs()), float(self.zero.detach().round().clamp(0, self.top))
        return -zero * scale, (self.top - zero) * scale

    def __call__(self, x: Tensor) -> Tensor:
        """`x` rounded to the grid, any shape."""
        factor = 1 / math.sqrt(x.numel() * self.top) if x.numel() else 0.0
        scale = self.scale.abs().clamp(min=LEAST_SCALE)
        zero = pass_through(self.zero, self.zero.detach().round().clamp(0, self.top))
        return _Rounding.apply(x, scale, zero, self.top, factor)


def pass_through(soft: Tensor, hard: Tensor) -> Tensor:
    """The number `hard` with the gradient of `soft`."""
    return hard + (soft - soft.detach())


def weight_scale(weight: Tensor, bits: int, group: int = 0) -> Tensor:
    """Symmetric scales: the largest element of a column, or of each group of its rows, is the top code.

    Args:
        weight: [K, N].
        bits: 2 to 8.
        group: Rows that share a scale; 0 for all of a column.

    Returns:
        Scales, [1, N] or, one for each group, [K / group, N] (the last group may be smaller).
    """
    top = 2 ** (bits - 1) - 1
    reach = torch.stack([part.abs().amax(0) for part in _groups(weight.detach().double(), group)])
    scale = (reach / top).float()
    return torch.where(scale > LEAST_SCALE, scale, torch.ones_like(scale))


def round_weight(weight: Tensor, scale: Tensor, bits: int, group: int = 0) -> Tensor:
    """A weight on its grid, gradients passed straight through where nothing is clipped.

    Args:
        weight: [K, N].
        scale: From `weight_scale`.
        bits: 2 to 8; codes reach from ``-top`` to ``top``.
        group: As the scale was made.
    """
    top = 2 ** (bits - 1) - 1
    steps = spread(scale, len(weight), group)
    with torch.no_grad():
        codes = torch.round(weight.double() / steps.double()).clamp(-top, top).to(weight.dtype)
        rounded = codes * steps
    limit = top * steps
    return pass_through(torch.clamp(weight, -limit, limit), rounded)


def spread(scale: Tensor, rows: int, group: int) -> Tensor:
    """Scales of groups of rows as scales of rows, [rows, N], or [1, N] where a column has one."""
    return scale if len(scale) == 1 else scale.repeat_interleave(group, 0)[:rows]


def _groups(weight: Tensor, group: int) -> tuple[Tensor, ...]:
    return weight.split(group) if group else (weight,)

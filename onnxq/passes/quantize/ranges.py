"""From what calibration saw of a tensor to the scale and zero point of its 8 bits.

Every range is widened to hold zero, so that zero (padding, a ReLU's floor, a mask) is represented exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxq.statistics import Histogram, TensorStatistics

RangeMethod = Literal["minmax", "percentile", "mse"]

LEVELS = 255
"""Steps between the 256 values of an unsigned byte."""

_SHRINKS = np.linspace(1.0, 0.2, 81)


@dataclass(frozen=True)
class QuantParams:
    """An asymmetric per-tensor quantization to uint8: ``real = (code - zero_point) * scale``."""

    scale: np.float32
    zero_point: np.uint8

    def apply(self, values: np.ndarray) -> np.ndarray:
        """`values` rounded to the grid, any shape, as QuantizeLinear and DequantizeLinear do it."""
        codes = np.rint(values / self.scale) + np.float32(self.zero_point)
        rounded: np.ndarray = (np.clip(codes, 0, LEVELS) - np.float32(self.zero_point)) * self.scale
        return rounded


def params_for(low: float, high: float) -> QuantParams:
    """The finest grid that holds [low, high] and zero; the scale is 1 for a tensor of zeros."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / LEVELS)
    if not scale > np.finfo(np.float32).tiny:  # also a subnormal, which runtimes flush to zero
        return QuantParams(np.float32(1.0), np.uint8(0))
    return QuantParams(scale, np.uint8(np.clip(np.rint(-low / float(scale)), 0, LEVELS)))


def choose_range(
    seen: TensorStatistics, method: RangeMethod, percentile: float, margin: float = 0.0
) -> tuple[float, float]:
    """The range [low, high] that 8 bits should cover.

    Args:
        seen: Statistics with a histogram (any kind of extremes will do for "minmax").
        method: "minmax" covers everything seen; "percentile" cuts ``100 - percentile`` percent off each
            side; "mse" minimises the squared error of rounding and clipping together.
        percentile: In percent, over 50; for "percentile" alone.
        margin: Part by which both ends are moved out: other data reaches further than what was seen.

    Raises:
        ValueError: The method needs a histogram and there is none.
    """
    low, high = _seen_range(seen, method, percentile)
    return low * (1 + margin), high * (1 + margin)


def _seen_range(seen: TensorStatistics, method: RangeMethod, percentile: float) -> tuple[float, float]:
    if method == "minmax":
        return seen.low, seen.high
    if seen.histogram is None:
        raise ValueError(f"range method {method!r} needs a histogram")
    if method == "percentile":
        tail = 1 - percentile / 100
        return seen.histogram.quantile(tail), seen.histogram.quantile(1 - tail)
    return least_squares_range(seen.histogram)


def least_squares_range(histogram: Histogram) -> tuple[float, float]:
    """The range whose 256 values represent the histogram with the least squared error.

    Each side is shrunk in turn, which finds the asymmetric optimum of a long tail on one side.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    for _ in range(2):
        high = min((high * shrink for shrink in _SHRINKS), key=lambda top: _error(histogram, low, top))
        low = min((low * shrink for shrink in _SHRINKS), key=lambda floor: _error(histogram, floor, high))
    return low, high


def _error(histogram: Histogram, low: float, high: float) -> float:
    """Squared error of the histogram's values on the grid of [low, high]."""
    centres, counts = histogram.occupied()
    return float((counts * (params_for(low, high).apply(centres) - centres) ** 2).sum())

"""From what calibration saw of a tensor to the scale and zero point of its codes.

Every range is widened to hold zero, so that zero (padding, a ReLU's floor, a mask) is represented exactly.

Only *live* channels count: those whose row of the weight is other than zero in at least one integer product
that reads the tensor. Whatever becomes of the others is multiplied by zero, so a few towering channels that
were split off a weight cost no resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from onnxq.passes.quantize.return_levels import return_level
from onnxq.statistics import Histogram, SampleExtremes, TensorStatistics

RangeMethod = Literal["minmax", "average", "percentile", "mse", "token", "level"]
Interval = tuple[float, float]
"""The least and the greatest number that a range covers."""
Mask = npt.NDArray[np.bool_]
_T = TypeVar("_T")

LEAST_TOKEN_SCALE = np.float32(1e-30)
"""Scale of a token of zeros."""

_SHRINKS = np.linspace(1.0, 0.2, 81)


@dataclass(frozen=True)
class QuantParams:
    """A per-tensor quantization: ``real = (code - zero_point) * scale``.

    Attributes:
        scale: Positive.
        zero_point: uint8 for codes from 0; int8 for codes with a sign, 0 if they are symmetric.
        bits: 2 to 8; codes of fewer than 8 bits use a part of their type.
    """

    scale: np.float32
    zero_point: np.uint8 | np.int8
    bits: int = 8

    @property
    def signed(self) -> bool:
        """Whether the codes have a sign."""
        return isinstance(self.zero_point, np.int8)

    @property
    def symmetric(self) -> bool:
        """Whether the codes are signed and 0 stands for 0."""
        return self.signed and int(self.zero_point) == 0

    @property
    def least(self) -> int:
        """The least code. In 8 bits that of the type: QuantizeLinear cuts there."""
        if not self.signed:
            return 0
        return -128 if self.bits == 8 else 1 - (1 << (self.bits - 1))

    @property
    def most(self) -> int:
        """The greatest code."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def low(self) -> float:
        """What the least code stands for."""
        return (self.least - int(self.zero_point)) * float(self.scale)

    @property
    def high(self) -> float:
        """What the greatest code stands for."""
        return (self.most - int(self.zero_point)) * float(self.scale)

    def holds(self, low: float, high: float) -> bool:
        """Whether the range [low, high] fits, but for half a step."""
        slack = 0.5001 * float(self.scale)
        return self.low - slack <= low and high <= self.high + slack

    def apply(self, values: np.ndarray) -> np.ndarray:
        """`values` rounded to the grid, any shape, as QuantizeLinear and DequantizeLinear do it."""
        zero = np.float32(self.zero_point)
        codes = np.rint(values / self.scale) + zero
        rounded: np.ndarray = (np.clip(codes, self.least, self.most) - zero) * self.scale
        return rounded


@dataclass(frozen=True)
class PerToken:
    """A symmetric quantization with a scale for each token, found while the model runs.

    Attributes:
        bits: 2 to 8.
        signed: Whether codes are int8 rather than uint8 around 128.
    """

    bits: int = 8
    signed: bool = False

    def apply(self, values: np.ndarray) -> np.ndarray:
        """`values` [T, C] rounded row by row."""
        scale = self._scale(values)
        rounded: np.ndarray = np.rint(values / scale) * scale
        return rounded

    def _scale(self, values: np.ndarray) -> np.ndarray:
        most = (1 << (self.bits - 1)) - 1
        scale: np.ndarray = np.maximum(np.abs(values).max(axis=-1, keepdims=True) / most, LEAST_TOKEN_SCALE)
        return scale


def params_for(
    low: float, high: float, bits: int = 8, *, symmetric: bool = False, signed: bool = False
) -> QuantParams:
    """The finest grid that holds [low, high] and zero; the scale is 1 for a tensor of zeros.

    Args:
        low: Of the range.
        high: Of the range.
        bits: Of the codes.
        symmetric: Whether the zero point is 0, the codes having a sign.
        signed: Whether codes have a sign though their zero point is wherever it is best; in 8 bits alone,
            the same grid as without.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    most = (1 << (bits - symmetric)) - 1
    scale = np.float32((max(high, -low) if symmetric else high - low) / most)
    if not scale > np.finfo(np.float32).tiny:  # also a subnormal, which runtimes flush to zero
        scale, low = np.float32(1.0), 0.0
    if symmetric:
        return QuantParams(scale, np.int8(0), bits)
    zero = int(np.clip(np.rint(-low / float(scale)), 0, most))
    if signed and bits == 8:
        return QuantParams(scale, np.int8(zero - 128), bits)
    return QuantParams(scale, np.uint8(zero), bits)


def choose_range(
    seen: TensorStatistics,
    method: RangeMethod,
    percentile: float,
    margin: float = 0.0,
    *,
    live: Mask | None = None,
    bits: int = 8,
    symmetric: bool = False,
) -> tuple[float, float]:
    """The range [low, high] that the codes should cover.

    Args:
        seen: Statistics. "minmax" takes any kind of extremes, those of channels if `live` is to count;
            "average" those of samples, "level" those of channels by sample, "token" those of tokens,
            "percentile" and "mse" a histogram.
        method: "minmax" covers everything seen; "average" what a sample reaches on average; "percentile" cuts
            ``100 - percentile`` percent off each side; "token" the tokens whose largest element is among the
            ``100 - percentile`` percent largest of all tokens; "mse" minimises the squared error of rounding
            and clipping together; "level" everything seen, and what a sample in hundred will reach beyond it
            (`return_levels`).
        percentile: In percent, over 50; for the two methods that cut a share.
        margin: Part by which both ends are moved out: other data reaches further than what was seen.
        live: Which channels matter, [C]; all if None. No range reaches beyond theirs.
        bits: Bits of the codes, which "mse" weighs clipping against.
        symmetric: Whether both ends will be equally far from zero, which "mse" takes into account.

    Raises:
        ValueError: The method needs statistics that are not there.
    """
    bounds = _live_bounds(seen, live)
    if method == "minmax":
        low, high = bounds
    elif method == "level":
        low, high = _levels(_needed(seen.samples, method, "the extremes of samples"), bounds, live)
    elif method == "mse":
        found = _needed(seen.histogram, method, "a histogram").restrict(*bounds)
        low, high = least_squares_range(found, bits, symmetric=symmetric) if found.total else bounds
    else:
        low, high = _cut_range(seen, method, percentile)
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return low * (1 + margin), high * (1 + margin)


def _live_bounds(seen: TensorStatistics, live: Mask | None) -> tuple[float, float]:
    """Extremes of the live channels; of all where channels were not looked at; (0, 0) of none."""
    if live is None or live.all() or seen.channel is None or seen.channel.low.shape != live.shape:
        return seen.low, seen.high
    low, high = seen.channel.low[live], seen.channel.high[live]
    return float(low.min(initial=0.0)), float(high.max(initial=0.0))


def _levels(samples: SampleExtremes, bounds: tuple[float, float], live: Mask | None) -> tuple[float, float]:
    """Both bounds, moved out to the return levels of the live channels' extremes by sample."""
    counts = slice(None) if live is None or live.shape != samples.low.shape[1:] else live
    lows = samples.low[:, counts].min(axis=1, initial=0.0)
    highs = samples.high[:, counts].max(axis=1, initial=0.0)
    return min(bounds[0], -return_level(-lows)), max(bounds[1], return_level(highs))


def _cut_range(seen: TensorStatistics, method: RangeMethod, percentile: float) -> tuple[float, float]:
    if method == "average":
        average = _needed(seen.average, method, "the extremes of samples")
        return average.low, average.high
    if method == "token":
        return _needed(seen.token, method, "the extremes of tokens").quantiles(percentile / 100)
    histogram = _needed(seen.histogram, method, "a histogram")
    tail = 1 - percentile / 100
    return histogram.quantile(tail), histogram.quantile(1 - tail)


def least_squares_range(
    histogram: Histogram, bits: int = 8, *, symmetric: bool = False
) -> tuple[float, float]:
    """The range whose codes represent the histogram with the least squared error.

    Each side is shrunk in turn, which finds the asymmetric optimum of a long tail on one side; a symmetric
    grid has one size only.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)

    def error(floor: float, top: float) -> float:
        centres, counts = histogram.occupied()
        params = params_for(floor, top, bits, symmetric=symmetric)
        return float((counts * (params.apply(centres) - centres) ** 2).sum())

    if symmetric:
        reach = max(-low, high)
        reach = min((reach * shrink for shrink in _SHRINKS), key=lambda top: error(-top, top))
        return -reach, reach
    for _ in range(2):
        high = min((high * shrink for shrink in _SHRINKS), key=lambda top: error(low, top))
        low = min((low * shrink for shrink in _SHRINKS), key=lambda floor: error(floor, high))
    return low, high


def _needed(found: _T | None, method: str, what: str) -> _T:
    if found is None:
        raise ValueError(f"range method {method!r} needs {what}")
    return found

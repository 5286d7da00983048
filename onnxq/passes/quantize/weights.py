"""Grids for weights, and weights in 2 to 8 bits: one scale for each output column.

A range that just holds a column ("minmax") wastes codes on its largest numbers at few bits; "mse" cuts the
range as far as lowers the squared error, each row weighing as much as the activation it multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxq.passes.quantize.rounding import Grid, round_nearest

WeightRange = Literal["minmax", "mse"]

_SHRINKS = np.linspace(1.0, 0.4, 31)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """``weight ~ codes * scale``.

    Attributes:
        codes: int8 [K, N].
        scale: float32 [N].
    """

    codes: np.ndarray
    scale: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """What the codes stand for, float32 [K, N]."""
        values: np.ndarray = self.codes.astype(np.float32) * self.scale
        return values


def quantize_weight(
    weight: np.ndarray, bits: int = 8, *, least_scale: np.ndarray | float = 0.0
) -> QuantizedWeight:
    """Round a weight to `bits` bits per output column, each number to the nearest.

    Args:
        weight: [K, N], any float type.
        bits: 2 to 8; 7 for x86 processors whose 16-bit accumulators saturate otherwise.
        least_scale: Scale that a column has at least, [N] or one for all.
    """
    grid = symmetric_grid(weight, bits, least_scale=least_scale)
    return QuantizedWeight(round_nearest(weight, grid), grid.scale[0])


def symmetric_grid(
    weight: np.ndarray,
    bits: int = 8,
    *,
    weight_range: WeightRange = "minmax",
    importance: np.ndarray | None = None,
    least_scale: np.ndarray | float = 0.0,
) -> Grid:
    """Signed codes around 0 with a float32 scale for each column.

    Args:
        weight: [K, N], any float type.
        bits: 2 to 8.
        weight_range: How the scale is chosen; see above.
        importance: For "mse": how much the error of each row weighs, [K]; all the same if None.
        least_scale: Scale that a column has at least, [N] or one for all.
    """
    low, high = _ends(weight)
    widest = _usable(np.maximum(np.maximum(high, -low) / ((1 << (bits - 1)) - 1), least_scale))
    if weight_range == "minmax":
        return Grid(widest[None], bits=bits)
    heavy = np.ones(len(weight)) if importance is None else np.asarray(importance, np.float64)
    grids = [Grid(_usable(np.maximum(widest * shrink, least_scale))[None], bits=bits) for shrink in _SHRINKS]
    return _best(grids, weight, heavy)


def _ends(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest number of each column in float64, 0 among them."""
    low, high = rows.min(axis=0, initial=0.0), rows.max(axis=0, initial=0.0)
    return low.astype(np.float64), high.astype(np.float64)


def _usable(scale: np.ndarray) -> np.ndarray:
    """`scale` in float32; 1 for a column of zeros, or of numbers that a runtime flushes to zero."""
    narrow = np.atleast_1d(scale).astype(np.float32)
    narrow[~(narrow > np.finfo(np.float32).tiny)] = 1.0
    return narrow


def _best(grids: list[Grid], weight: np.ndarray, importance: np.ndarray) -> Grid:
    """Column by column, the one of `grids` with the least weighted squared error."""
    errors = [importance @ (weight - grid.values(round_nearest(weight, grid))) ** 2 for grid in grids]
    chosen = np.argmin(np.stack(errors), axis=0)[None]
    scale = np.take_along_axis(np.concatenate([grid.scale for grid in grids]), chosen, 0)
    return Grid(scale, bits=grids[0].bits)

"""Grids for weights, and weights in 2 to 8 bits: one scale for each output column, or for each group of rows.

A range that just holds a column ("minmax") wastes codes on its largest numbers at few bits; "mse" cuts the
range as far as lowers the squared error, each row weighing as much as the activation it multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxq.passes.quantize.rounding import Grid, round_nearest

WeightRange = Literal["minmax", "mse"]

_STRIP = 1 << 18
"""Elements of the columns that are rounded at a time: their copies in float64 stay small beside a table."""

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
    rows, columns = weight.shape
    strip = max(_STRIP // max(rows, 1), 1)
    least = np.broadcast_to(np.asarray(least_scale), columns)
    codes, scale = np.empty_like(weight, np.int8), np.empty(columns, np.float32)
    for start in range(0, columns, strip):
        part = slice(start, start + strip)
        grid = symmetric_grid(weight[:, part], bits, least_scale=least[part])
        codes[:, part], scale[part] = round_nearest(weight[:, part], grid), grid.scale[0]
    return QuantizedWeight(codes, scale)


def symmetric_grid(
    weight: np.ndarray,
    bits: int = 8,
    *,
    group: int = 0,
    whole: bool = False,
    weight_range: WeightRange = "minmax",
    importance: np.ndarray | None = None,
    least_scale: np.ndarray | float = 0.0,
) -> Grid:
    """Signed codes around 0 with a float32 scale for each column, or for each `group` rows of each column.

    Args:
        weight: [K, N], any float type.
        bits: 2 to 8.
        group: Rows that share a scale; 0 for all.
        whole: Whether codes reach down to ``-2**(bits - 1)``. "minmax" does not use that code then; "mse"
            may, by cutting.
        weight_range: How the scale is chosen; see above.
        importance: For "mse": how much the error of each row weighs, [K]; all the same if None.
        least_scale: Scale that a column has at least, [N] or one for all.
    """
    parts = _groups(np.asarray(weight, np.float64), group)
    weights = _groups(_importance(weight, importance), group)
    made = []
    for rows, heavy in zip(parts, weights, strict=True):
        reach = np.abs(rows).max(axis=0, initial=0.0) / ((1 << (bits - 1)) - 1)
        widest = _usable(np.maximum(reach, least_scale))
        candidates = [widest]
        if weight_range == "mse":
            candidates = [_usable(np.maximum(widest * shrink, least_scale)) for shrink in _SHRINKS]
        made.append(_best([Grid(each[None], bits=bits, whole=whole) for each in candidates], rows, heavy))
    return Grid(np.concatenate([each.scale for each in made]), None, bits, group, whole)


def asymmetric_grid(
    weight: np.ndarray,
    bits: int,
    *,
    group: int = 0,
    weight_range: WeightRange = "minmax",
    importance: np.ndarray | None = None,
) -> Grid:
    """Codes from 0 with a float32 scale and a zero point for each column, or for each `group` rows of it.

    Every range holds 0, so that zero is exact. Arguments as for `symmetric_grid`.
    """
    parts = _groups(np.asarray(weight, np.float64), group)
    weights = _groups(_importance(weight, importance), group)
    shrinks = _SHRINKS if weight_range == "mse" else _SHRINKS[:1]
    made = []
    for rows, heavy in zip(parts, weights, strict=True):
        low, high = rows.min(axis=0, initial=0.0), rows.max(axis=0, initial=0.0)
        made.append(_best([_spanning(low * each, high * each, bits) for each in shrinks], rows, heavy))
    scale = np.concatenate([each.scale for each in made])
    zeros = [each.zero_point for each in made if each.zero_point is not None]
    return Grid(scale, np.concatenate(zeros), bits, group)


def _spanning(low: np.ndarray, high: np.ndarray, bits: int) -> Grid:
    most = (1 << bits) - 1
    scale = _usable((high - low) / most)
    zero = np.clip(np.rint(-low / scale), 0, most)
    return Grid(scale[None], zero.astype(np.uint8)[None], bits)


def _usable(scale: np.ndarray) -> np.ndarray:
    """`scale` in float32; 1 for a column of zeros, or of numbers that a runtime flushes to zero."""
    narrow = np.atleast_1d(scale).astype(np.float32)
    narrow[~(narrow > np.finfo(np.float32).tiny)] = 1.0
    return narrow


def _best(grids: list[Grid], rows: np.ndarray, importance: np.ndarray) -> Grid:
    """Column by column, the one of `grids` (one group each) with the least weighted squared error."""
    if len(grids) == 1:
        return grids[0]
    errors = [importance @ (rows - grid.values(round_nearest(rows, grid))) ** 2 for grid in grids]
    chosen = np.argmin(np.stack(errors), axis=0)[None]
    scale = np.take_along_axis(np.concatenate([grid.scale for grid in grids]), chosen, 0)
    zeros = [grid.zero_point for grid in grids if grid.zero_point is not None]
    zero = np.take_along_axis(np.concatenate(zeros), chosen, 0) if zeros else None
    return Grid(scale, zero, grids[0].bits, 0, grids[0].whole)


def _importance(weight: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    return np.ones(len(weight)) if given is None else np.asarray(given, np.float64)


def _groups(rows: np.ndarray, group: int) -> list[np.ndarray]:
    size = group or max(len(rows), 1)
    return [rows[start : start + size] for start in range(0, max(len(rows), 1), size)]

"""Weights in 7 or 8 bits: signed, symmetric, one scale for each output column, zero point 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    """Round a weight to `bits` bits per output column.

    Args:
        weight: [K, N], any float type.
        bits: 8, or 7 for x86 processors whose 16-bit accumulators saturate otherwise.
        least_scale: Scale that a column has at least, [N] or one for all.
    """
    top = 2 ** (bits - 1) - 1
    exact = np.asarray(weight, np.float64)
    reach = np.abs(exact).max(axis=0, initial=0.0)
    scale = np.maximum(reach / top, least_scale).astype(np.float32)
    scale[~(scale > np.finfo(np.float32).tiny)] = 1.0  # a column of zeros
    codes = np.clip(np.rint(exact / scale), -top, top).astype(np.int8)
    return QuantizedWeight(codes, scale)

"""How far a tensor will reach in samples to come, from how far it reached in those that were seen.

The greatest elements of samples, being maxima over many numbers, follow a Gumbel distribution about as well
as anything; its level for a return period of T samples is what one sample in T exceeds:

    z_T = μ - β ln(-ln(1 - 1/T)),   β = s √6 / π,   μ = m - γ β

with m and s the mean and the deviation of the maxima seen (method of moments; γ is Euler's constant). So a
tensor whose maxima are steady keeps its range, and one whose maxima vary widely gets the room that one margin
for all tensors would give, or deny, to everything.

Source: Coles, An Introduction to Statistical Modeling of Extreme Values (2001), chapter 3, equations 3.3 and
3.10 for a shape of zero.
"""

from __future__ import annotations

import math

import numpy as np

PERIOD = 100.0
"""Samples of which one exceeds the level."""
FEWEST = 8
"""Samples below which a deviation means little."""
BLIND = 0.2
"""Part by which the greatest of fewer samples is exceeded instead."""


def return_level(maxima: np.ndarray, period: float = PERIOD) -> float:
    """The level that one sample in `period` exceeds.

    Args:
        maxima: The greatest element of each sample, [S].
        period: In samples, above 1.

    Returns:
        The level; of fewer than `FEWEST` samples the greatest, widened by `BLIND`; 0 of none.
    """
    if len(maxima) < FEWEST:
        return float(maxima.max(initial=0.0)) * (1 + BLIND)
    values = maxima.astype(np.float64)
    scale = float(values.std(ddof=1)) * math.sqrt(6) / math.pi
    location = float(values.mean()) - np.euler_gamma * scale
    return location - scale * math.log(-math.log1p(-1 / period))

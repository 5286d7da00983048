"""What rounding does to an activation and to a weight: the trial grids that searches over scales judge by.

Activations: asymmetric, one grid for the tensor, always holding zero. Weights: symmetric, one grid for each
output column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LEAST_STEP = 1e-30


@dataclass(frozen=True)
class TrialBits:
    """How finely a trial rounds.

    Attributes:
        weight: Bits of weights, 2 to 16.
        activation: Bits of activations, 2 to 16.
        margin: Part by which the range of an activation is widened, as the real quantization will.
    """

    weight: int = 8
    activation: int = 8
    margin: float = 0.1

    @property
    def levels(self) -> int:
        """Steps from one end of an activation's range to the other."""
        return (1 << self.activation) - 1

    @property
    def weight_levels(self) -> int:
        """Steps from zero to the greatest number of a column."""
        return (1 << (self.weight - 1)) - 1


AS_SEEN = TrialBits(margin=0.0)
"""8 bits, and ranges no wider than the data."""


def round_activation(values: np.ndarray, low: float, high: float, bits: int) -> np.ndarray:
    """`values` of any shape, clipped to [low, high] and rounded to the `2**bits` points of that range."""
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    step = np.float32(max((high - low) / levels, _LEAST_STEP))
    zero = np.float32(np.rint(-low / float(step)))
    codes: np.ndarray = np.rint(values / step)
    np.clip(codes, -zero, levels - zero, out=codes)
    codes *= step
    return codes


def round_weight(weight: np.ndarray, bits: int) -> np.ndarray:
    """A weight [K, N] rounded to `bits` bits, column by column."""
    top = np.float32(2 ** (bits - 1) - 1)
    step = np.maximum(np.maximum(weight.max(axis=0), -weight.min(axis=0)) / top, np.float32(_LEAST_STEP))
    codes: np.ndarray = np.rint(weight / step)
    codes *= step
    return codes

"""Sums of products of an activation with what becomes of it when everything in front of it is quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairedMoments(EqualByFields):
    """Second moments of the tokens X [T, C] of a value and of the same tokens Xq behind a quantized prefix.

    Attributes:
        gram: Xq^T Xq, float64 [C, C].
        cross: Xq^T X, float64 [C, C].
        gram_float: X^T X, float64 [C, C].
        total_quantized: Sum of the tokens Xq, float64 [C].
        total: Sum of the tokens X, float64 [C].
        error: Sum over tokens of (Xq - X)^2, float64 [C].
        count: Tokens.
    """

    gram: Floats
    cross: Floats
    gram_float: Floats
    total_quantized: Floats
    total: Floats
    error: Floats
    count: int

    def __post_init__(self) -> None:
        square = self.total.shape * 2
        if self.total.ndim != 1 or not self.gram.shape == self.cross.shape == self.gram_float.shape == square:
            raise ValueError(f"products {self.gram.shape} do not fit sums {self.total.shape}")
        if not self.total_quantized.shape == self.error.shape == self.total.shape:
            raise ValueError(f"sums of shapes {self.total_quantized.shape}, {self.total.shape}")

    @classmethod
    def of(cls, tokens: npt.NDArray[np.floating], quantized: npt.NDArray[np.floating]) -> PairedMoments:
        """Moments of the rows of `tokens` and `quantized`, both [T, C].

        Raises:
            ValueError: They differ in shape.
        """
        if tokens.shape != quantized.shape:
            raise ValueError(f"tokens {tokens.shape} are no pairs with {quantized.shape}")
        plain, coarse = np.asarray(tokens, dtype=np.float64), np.asarray(quantized, dtype=np.float64)
        return cls(
            coarse.T @ coarse,
            coarse.T @ plain,
            plain.T @ plain,
            coarse.sum(axis=0),
            plain.sum(axis=0),
            np.square(coarse - plain).sum(axis=0),
            len(plain),
        )

    @property
    def shift(self) -> Floats:
        """Mean of Xq - X, float64 [C]: what a bias correction of the consumer takes back."""
        return np.asarray((self.total_quantized - self.total) / max(self.count, 1), dtype=np.float64)

    def merge(self, other: PairedMoments) -> PairedMoments:
        """Moments of the tokens of both, up to rounding in float64."""
        if self.total.shape != other.total.shape:
            raise ValueError(f"{self.total.size} channels do not merge with {other.total.size}")
        return PairedMoments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.gram_float + other.gram_float,
            self.total_quantized + other.total_quantized,
            self.total + other.total,
            self.error + other.error,
            self.count + other.count,
        )

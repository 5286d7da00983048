"""Sums of products: what outlier figures, bias correction and second-order rounding are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields
from onnxq.statistics.exact_sum import ExactSum

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SecondMoments(EqualByFields):
    """The Gram matrix X^T X of all tokens X [T, C], and their sum.

    Attributes:
        products: Sum over tokens of the outer product of each with itself, [C, C].
        sums: Sum over tokens, [C].
        count: Tokens.
    """

    products: ExactSum
    sums: ExactSum
    count: int

    def __post_init__(self) -> None:
        channels = self.sums.lead.shape
        if len(channels) != 1 or self.products.lead.shape != channels * 2:
            raise ValueError(f"products {self.products.lead.shape} do not fit sums {channels}")

    @classmethod
    def of(cls, tokens: npt.NDArray[np.floating]) -> SecondMoments:
        """Moments of the rows of `tokens` [T, C], one sample."""
        wide = tokens.astype(np.float64)
        return cls(ExactSum.of(wide.T @ wide), ExactSum.of(wide.sum(axis=0)), len(wide))

    @property
    def gram(self) -> Floats:
        """X^T X, float64 [C, C]."""
        return self.products.value

    @property
    def mean(self) -> Floats:
        """Mean of each channel, float64 [C]."""
        return self.sums.value / max(self.count, 1)

    def merge(self, other: SecondMoments) -> SecondMoments:
        """Moments of the tokens of both."""
        return SecondMoments(
            self.products.merge(other.products), self.sums.merge(other.sums), self.count + other.count
        )


@dataclass(frozen=True, eq=False)
class RawMoments(EqualByFields):
    """Sums of powers of all elements, around zero, and of each sample's largest magnitude.

    Attributes:
        powers: Sums of x, x^2, x^3 and x^4: four scalars.
        peaks: Sum over samples of max |x|.
        count: Elements.
        samples: Samples.
    """

    powers: tuple[ExactSum, ExactSum, ExactSum, ExactSum]
    peaks: ExactSum
    count: int
    samples: int

    @classmethod
    def of(cls, sample: npt.NDArray[np.floating]) -> RawMoments:
        """Moments of the elements of one sample, of any shape."""
        wide = sample.astype(np.float64).reshape(-1)
        square = wide * wide
        powers = (wide.sum(), square.sum(), (square * wide).sum(), (square * square).sum())
        first, second, third, fourth = (ExactSum.of(power) for power in powers)
        peak = ExactSum.of(np.max(np.abs(wide), initial=0.0))
        return cls((first, second, third, fourth), peak, wide.size, 1)

    @property
    def mean(self) -> float:
        """Mean of all elements."""
        return self._moment(0)

    @property
    def variance(self) -> float:
        """Variance of all elements (divided by their number)."""
        return max(self._moment(1) - self._moment(0) ** 2, 0.0)

    @property
    def kurtosis(self) -> float:
        """Fourth central moment over squared variance: 3 for a normal distribution, NaN for a constant."""
        mean, square, cube, fourth = (self._moment(index) for index in range(4))
        central = fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4
        return central / self.variance**2 if self.variance > 0 else float("nan")

    @property
    def infinity_norm(self) -> float:
        """Mean over samples of max |x| (the outlier figure of Quantizable Transformers, arXiv 2306.12929)."""
        return float(self.peaks.value) / max(self.samples, 1)

    def merge(self, other: RawMoments) -> RawMoments:
        """Moments of the samples of both."""
        first, second, third, fourth = (
            one.merge(two) for one, two in zip(self.powers, other.powers, strict=True)
        )
        peaks, count = self.peaks.merge(other.peaks), self.count + other.count
        return RawMoments((first, second, third, fourth), peaks, count, self.samples + other.samples)

    def _moment(self, index: int) -> float:
        return float(self.powers[index].value) / max(self.count, 1)

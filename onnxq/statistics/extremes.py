"""Least and greatest elements: per channel, and per token.

Per-channel extremes show which channels hold outliers. Per-token extremes are what token-wise clipping reads:
the range of a tensor is set by few tokens, and clipping those is searched over the quantiles of the tokens'
own extremes (Outlier Suppression, arXiv 2209.13325, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields
from onnxq.statistics.exact_sum import ExactSum

Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]

TOKEN_CAP = 16_384
"""Tokens that `TokenExtremes` keeps of one value; all of them up to here, a fixed sample beyond."""


@dataclass(frozen=True, eq=False)
class ChannelExtremes(EqualByFields):
    """Least and greatest element of each channel.

    Attributes:
        low: float64 [C].
        high: float64 [C].
    """

    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(f"extremes of shapes {self.low.shape} and {self.high.shape}")

    @classmethod
    def of(cls, tokens: npt.NDArray[np.floating]) -> ChannelExtremes:
        """Extremes over the rows of `tokens` [T, C]; of no rows: low +inf, high -inf."""
        low = np.min(tokens, axis=0, initial=np.inf).astype(np.float64)
        return cls(low, np.max(tokens, axis=0, initial=-np.inf).astype(np.float64))

    @property
    def magnitude(self) -> Floats:
        """Greatest absolute element of each channel, float64 [C]."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def merge(self, other: ChannelExtremes) -> ChannelExtremes:
        """Extremes over the tokens of both."""
        if self.low.shape != other.low.shape:
            raise ValueError(f"{self.low.size} channels do not merge with {other.low.size}")
        return ChannelExtremes(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


@dataclass(frozen=True, eq=False)
class TokenExtremes(EqualByFields):
    """Least and greatest element of each token: of all tokens, or of `TOKEN_CAP` of them.

    Beyond the cap the tokens with the least keys stay. A key is a hash of the sample's content and the
    token's place in it, so the choice is as good as random and the same for every order of samples and every
    way to merge.

    Attributes:
        low: float64 [T], sorted by key.
        high: float64 [T].
        keys: uint64 [T], ascending.
        count: Tokens seen, at least T.
    """

    low: Floats
    high: Floats
    keys: Keys
    count: int

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or not self.low.shape == self.high.shape == self.keys.shape:
            raise ValueError(f"tokens of shapes {self.low.shape}, {self.high.shape} and {self.keys.shape}")
        if self.count < self.low.size or self.low.size > TOKEN_CAP:
            raise ValueError(f"{self.low.size} tokens kept of {self.count}")

    @classmethod
    def of(cls, tokens: npt.NDArray[np.floating], sample: int = 0) -> TokenExtremes:
        """Extremes of each row of `tokens` [T, C], all of one sample.

        Args:
            tokens: Float activations, padding already left out.
            sample: A hash of the sample's content (64 bits).
        """
        low, high = tokens.min(axis=1).astype(np.float64), tokens.max(axis=1).astype(np.float64)
        return _least_keys(low, high, token_keys(len(tokens), sample), len(tokens))

    @property
    def complete(self) -> bool:
        """Whether every token seen is still here."""
        return self.count == self.low.size

    def quantiles(self, alpha: float) -> tuple[float, float]:
        """A range that clips the share ``1 - alpha`` of the tokens that stick out most, on each side.

        The side of zero that the tokens' extremes are on does not matter: a token counts by the magnitude of
        its greatest (least) element. Bounds are extremes of tokens that were seen, the greatest and the least
        that do not exceed the quantile; of tokens beyond the cap the sample that was kept stands for all.
        Take from `ChannelExtremes` or `Histogram` what must be exact, such as the range for an alpha of 1.

        Args:
            alpha: Share of the tokens, above 0 and up to 1.

        Returns:
            Low and high; both NaN of no tokens.

        Raises:
            ValueError: If `alpha` is no such share.

        Source:
            Outlier Suppression (arXiv 2209.13325), section 4.2, the coarse stage of token-wise clipping.
        """
        if not 0 < alpha <= 1:
            raise ValueError(f"a share of the tokens is above 0 and up to 1, not {alpha}")
        if not self.low.size:
            return float("nan"), float("nan")
        # Interpolating could give a bound below the only token's own extreme, which would leave nothing.
        below, above = (
            float(np.quantile(np.abs(ends), alpha, method="inverted_cdf")) for ends in (self.low, self.high)
        )
        return float(self.low[self.low >= -below].min()), float(self.high[self.high <= above].max())

    def merge(self, other: TokenExtremes) -> TokenExtremes:
        """Extremes of the tokens of both."""
        return TokenExtremes.joined([self, other])

    @staticmethod
    def joined(parts: list[TokenExtremes]) -> TokenExtremes:
        """All of `parts` merged, with one sort."""
        low, high = (
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.high for part in parts]),
        )
        return _least_keys(
            low, high, np.concatenate([part.keys for part in parts]), sum(part.count for part in parts)
        )


@dataclass(frozen=True, eq=False)
class AverageExtremes(EqualByFields):
    """The least and the greatest element of a sample, on average over the samples.

    The range of average min-max calibration: one odd sample moves it by no more than its share.

    Attributes:
        lows: Sum over samples of the least element.
        highs: Sum over samples of the greatest element.
        samples: Samples.
    """

    lows: ExactSum
    highs: ExactSum
    samples: int

    def __post_init__(self) -> None:
        if self.lows.lead.shape or self.highs.lead.shape or self.samples < 0:
            raise ValueError(f"sums of shapes {self.lows.lead.shape} and {self.highs.lead.shape}")

    @classmethod
    def of(cls, sample: npt.NDArray[np.floating]) -> AverageExtremes:
        """Extremes of the elements of one sample, of any shape; without elements it does not count."""
        if not sample.size:
            return cls(ExactSum.of(0.0), ExactSum.of(0.0), 0)
        return cls(ExactSum.of(float(sample.min())), ExactSum.of(float(sample.max())), 1)

    @property
    def low(self) -> float:
        """Mean over samples of the least element; NaN of no samples."""
        return float(self.lows.value) / self.samples if self.samples else float("nan")

    @property
    def high(self) -> float:
        """Mean over samples of the greatest element; NaN of no samples."""
        return float(self.highs.value) / self.samples if self.samples else float("nan")

    def merge(self, other: AverageExtremes) -> AverageExtremes:
        """The average over the samples of both."""
        return AverageExtremes(
            self.lows.merge(other.lows), self.highs.merge(other.highs), self.samples + other.samples
        )


def _least_keys(low: Floats, high: Floats, keys: Keys, count: int) -> TokenExtremes:
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    if (ascending[1:] == ascending[:-1]).any():
        # Equal keys come from equal samples; ordering them by content leaves no choice to chance.
        order = np.lexsort((high, low, keys))
    order = order[:TOKEN_CAP]
    return TokenExtremes(low[order], high[order], keys[order], count)


def least_keys(keys: Keys, cap: int, *contents: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Places of the `cap` least keys, in ascending order.

    Args:
        keys: [T].
        cap: How many are kept.
        contents: What belongs to each key, [T, ...].
    """
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    if (ascending[1:] == ascending[:-1]).any():
        # Equal keys come from equal samples; ordering them by content leaves no choice to chance.
        order = np.array(sorted(order, key=lambda at: (keys[at], *(each[at].tobytes() for each in contents))))
    return order[:cap]


def token_keys(tokens: int, sample: int) -> Keys:
    """Well mixed 64-bit keys of the tokens of a sample (the finaliser of SplitMix64)."""
    keys = np.arange(1, tokens + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys += np.uint64(int(sample) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(keys ^ (keys >> np.uint64(31)), dtype=np.uint64)

"""How far each channel reaches in each of some samples: what a range over few samples leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields
from onnxq.statistics.extremes import Keys, least_keys, token_keys


@dataclass(frozen=True, eq=False)
class SampleExtremes(EqualByFields):
    """Least and greatest element of each channel in each sample: of all samples, or of `CAP` of them.

    The samples with the least keys stay, a key being a hash of the sample's content: the choice is as good as
    random, and the same for every order of samples.

    Attributes:
        low: float32 [S, C], sorted by key.
        high: float32 [S, C].
        keys: uint64 [S], ascending.
    """

    CAP: ClassVar[int] = 64
    """Samples that are kept of one value."""

    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    keys: Keys

    def __post_init__(self) -> None:
        if self.low.ndim != 2 or self.low.shape != self.high.shape or len(self.low) != len(self.keys):
            raise ValueError(f"samples of shapes {self.low.shape}, {self.high.shape} and {self.keys.shape}")
        if len(self.keys) > self.CAP:
            raise ValueError(f"{len(self.keys)} samples, of which {self.CAP} are kept")

    @classmethod
    def of(cls, tokens: npt.NDArray[np.floating], sample: int = 0) -> SampleExtremes:
        """Extremes over the rows of `tokens` [T, C], all of one sample; of no rows nothing is kept.

        Args:
            tokens: Float activations, padding already left out.
            sample: A hash of the sample's content (64 bits).
        """
        if not len(tokens):
            return cls(tokens.astype(np.float32), tokens.astype(np.float32), token_keys(0, sample))
        low, high = (end(tokens, axis=0, keepdims=True).astype(np.float32) for end in (np.min, np.max))
        return cls(low, high, token_keys(1, sample))

    def merge(self, other: SampleExtremes) -> SampleExtremes:
        """Extremes in the samples of both.

        Raises:
            ValueError: They differ in the number of channels.
        """
        low, high = (np.concatenate(pair) for pair in ((self.low, other.low), (self.high, other.high)))
        keys = np.concatenate((self.keys, other.keys))
        order = least_keys(keys, self.CAP, low, high)
        return SampleExtremes(low[order], high[order], keys[order])

"""Some of the tokens themselves, for searches that judge an output error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields
from onnxq.statistics.extremes import Keys, least_keys, token_keys


@dataclass(frozen=True, eq=False)
class Rows(EqualByFields):
    """Tokens as they are: all of them, or `CAP` drawn evenly from all tokens of all samples.

    The tokens with the least keys stay. A key is a hash of the sample's content and the token's place in it,
    so the draw is the same for every order of samples, and the same for values that have the same tokens,
    such as the input and the output of a linear.

    Attributes:
        values: float32 [R, C], sorted by key.
        keys: uint64 [R], ascending.
    """

    CAP: ClassVar[int] = 1024
    """Tokens that are kept of one value."""

    values: npt.NDArray[np.float32]
    keys: Keys

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.keys.shape != self.values.shape[:1] or len(self.keys) > self.CAP:
            raise ValueError(f"rows {self.values.shape} do not fit keys {self.keys.shape}")
        if self.values.dtype != np.float32 or self.keys.dtype != np.uint64:
            raise ValueError(f"rows are float32 and keys uint64, not {self.values.dtype}, {self.keys.dtype}")

    @classmethod
    def of(cls, tokens: npt.NDArray[np.floating], sample: int = 0) -> Rows:
        """Rows of `tokens` [T, C], all of one sample.

        Args:
            tokens: Float activations, padding already left out.
            sample: A hash of the sample's content (64 bits).
        """
        keys = token_keys(len(tokens), sample)
        least = np.argsort(keys, kind="stable")[: cls.CAP]
        return cls(np.asarray(tokens)[least].astype(np.float32), keys[least])

    def merge(self, other: Rows) -> Rows:
        """Rows drawn from the tokens of both."""
        return Rows.joined([self, other])

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """All of `parts` merged, with one sort.

        Raises:
            ValueError: They differ in the number of channels.
        """
        keys = np.concatenate([part.keys for part in parts])
        values = np.concatenate([part.values for part in parts])
        order = least_keys(keys, cls.CAP, values)
        return cls(values[order], keys[order])

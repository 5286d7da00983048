"""Whole values on a few samples, for what must be run to be judged: attention, masks, rotary tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields
from onnxq.statistics.extremes import Keys


@dataclass(frozen=True, eq=False)
class Examples(EqualByFields):
    """A value as the model computed it on up to `CAP` samples, one sample a run, padding and all.

    The samples with the least keys stay, a key being a hash of a sample's content. So all values show the
    same samples, in the same order, and the order of the data does not matter. Of equal samples one is kept.

    Attributes:
        arrays: The value on each sample, of any element type and rank, a batch axis of 1 where it has one.
        keys: uint64 [number of arrays], ascending.
    """

    CAP: ClassVar[int] = 8
    """Samples that are kept."""

    arrays: tuple[np.ndarray, ...]
    keys: Keys

    def __post_init__(self) -> None:
        if self.keys.shape != (len(self.arrays),) or len(self.arrays) > self.CAP:
            raise ValueError(f"{len(self.arrays)} arrays do not fit keys {self.keys.shape}")
        if self.keys.dtype != np.uint64 or (self.keys[1:] <= self.keys[:-1]).any():
            raise ValueError("keys are uint64, ascending")
        if any(array.dtype.hasobject for array in self.arrays):
            raise ValueError("examples hold numbers")

    @classmethod
    def of(cls, arrays: Sequence[npt.NDArray[Any]]) -> Examples:
        """Examples that keep the order given, of the first `CAP` samples."""
        kept = tuple(np.asarray(array) for array in arrays[: cls.CAP])
        return cls(kept, np.arange(len(kept), dtype=np.uint64))

    def merge(self, other: Examples) -> Examples:
        """Examples from the samples of both."""
        found = dict(zip(other.keys.tolist(), other.arrays, strict=True))
        found |= dict(zip(self.keys.tolist(), self.arrays, strict=True))
        keys = sorted(found)[: self.CAP]
        return Examples(tuple(found[key] for key in keys), np.array(keys, dtype=np.uint64))

"""A histogram that merges exactly because its grid is not chosen from the data's order.

Bin width is a power of two, the same number of bins lies on each side of zero, and the width is the least one
that covers the largest magnitude seen. A wider range doubles the width: pairs of bins fall together, no count
moves across an edge. The grid is therefore a function of the largest magnitude alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields

Floats = npt.NDArray[np.float64]

BINS = 8192
_HALF = BINS // 2
_LOWEST = -300
_HIGHEST = 1012


@dataclass(frozen=True, eq=False)
class Histogram(EqualByFields):
    """How often each magnitude occurs.

    Bin ``BINS/2 + k`` (k >= 0) holds ``k*w <= x < (k+1)*w``; its mirror image ``BINS/2 - 1 - k`` holds
    ``-(k+1)*w < x <= -k*w``, zero excepted, with ``w = 2**exponent``.

    Attributes:
        exponent: log2 of the bin width.
        counts: Elements in each bin, int64 [BINS].
        low: Exact least element; +inf if there are none.
        high: Exact greatest element; -inf if there are none.
    """

    exponent: int
    counts: npt.NDArray[np.int64]
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.counts.shape != (BINS,) or self.counts.dtype != np.int64 or self.counts.min() < 0:
            raise ValueError(
                f"counts are {BINS} non-negative int64, not {self.counts.dtype}{self.counts.shape}"
            )
        if not _LOWEST <= self.exponent <= _HIGHEST:
            raise ValueError(f"bin width 2**{self.exponent} is out of range")

    @classmethod
    def empty(cls) -> Histogram:
        """The histogram of nothing: merging with it changes nothing."""
        return cls(_LOWEST, np.zeros(BINS, dtype=np.int64), float("inf"), float("-inf"))

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Histogram:
        """The histogram of all elements of `values`, which are finite floats of any shape."""
        flat = np.asarray(values).reshape(-1)
        if flat.size == 0:
            return cls.empty()
        low, high = float(flat.min()), float(flat.max())
        exponent = _exponent(max(-low, high))
        if flat.dtype != np.float32 or abs(exponent) > 100:
            flat = flat.astype(np.float64)
        # Truncation is towards zero on both sides; negatives then move one bin down, so that an element so
        # small that scaling flushes it to zero still lands on its own side of zero.
        bins = (flat * flat.dtype.type(2.0**-exponent)).astype(np.int32)
        bins -= flat < 0
        bins += _HALF
        return cls(exponent, np.bincount(bins, minlength=BINS).astype(np.int64), low, high)

    @property
    def total(self) -> int:
        """Number of elements."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Bin width."""
        return float(2.0**self.exponent)

    @property
    def edges(self) -> Floats:
        """Bin edges, float64 [BINS + 1]."""
        return np.arange(-_HALF, _HALF + 1, dtype=np.float64) * self.width

    @property
    def centres(self) -> Floats:
        """Bin centres, float64 [BINS]."""
        return (np.arange(-_HALF, _HALF, dtype=np.float64) + 0.5) * self.width

    def occupied(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Centres and counts of the bins that hold something, for a search over ranges."""
        (where,) = np.nonzero(self.counts)
        return self.centres[where], self.counts[where]

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of the elements of both."""
        exponent = max(self.exponent, other.exponent)
        counts = _coarsen(self.counts, exponent - self.exponent) + _coarsen(
            other.counts, exponent - other.exponent
        )
        return Histogram(exponent, counts, min(self.low, other.low), max(self.high, other.high))

    def quantile(self, q: float) -> float:
        """The value that a share `q` (0 to 1) of the elements does not exceed, within one bin width.

        Linear inside a bin; 0 and 1 give the exact extremes. NaN if there are no elements.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile is between 0 and 1, not {q}")
        if self.total == 0:
            return float("nan")
        if q in (0, 1):
            return self.high if q else self.low
        target = q * self.total
        below = np.concatenate([[0], np.cumsum(self.counts)])
        index = int(np.searchsorted(below, target, side="left")) - 1
        share = (target - below[index]) / self.counts[index]
        return float(np.clip(self.edges[index] + share * self.width, self.low, self.high))

    def restrict(self, low: float, high: float) -> Histogram:
        """The part between `low` and `high`: bins whose centre lies outside are emptied."""
        centres = self.centres
        counts = np.where((centres >= low) & (centres <= high), self.counts, 0)
        if not counts.any():
            return Histogram.empty()
        return Histogram(self.exponent, counts, max(self.low, low), min(self.high, high))


def _exponent(largest: float) -> int:
    """log2 of the least bin width whose bins cover magnitudes up to and including `largest`."""
    if not np.isfinite(largest):
        raise ValueError(f"a histogram holds finite elements, not {largest}")
    if largest == 0:  # zeros fit any width; the least one coarsens nothing that they are merged with
        return _LOWEST
    return max(int(np.frexp(largest)[1]) - (_HALF.bit_length() - 1), _LOWEST)


def _coarsen(counts: npt.NDArray[np.int64], doublings: int) -> npt.NDArray[np.int64]:
    """`counts` on bins that are ``2**doublings`` as wide."""
    for _ in range(min(doublings, _HALF.bit_length())):
        inner = counts.reshape(_HALF, 2).sum(axis=1)
        counts = np.zeros(BINS, dtype=np.int64)
        counts[_HALF // 2 : _HALF // 2 + _HALF] = inner
    return counts

"""Sums of floats that do not depend on the order of the terms.

A float64 sum depends on its order in the last bits, so two runs over the same samples in another order would
give other statistics. Here each term is cut into digits of 40 bits on a grid that is fixed for all time, and
each digit is summed as an integer. Only the two leading digits are kept, led by the largest term seen; digits
below are cut off each term *before* summing, so that cutting early or late gives the same integers.

Source: the binned sums of Demmel and Nguyen, "Parallel Reproducible Summation" (IEEE Trans. Computers, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxq.statistics.equality import EqualByFields

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DIGIT = 40
"""Bits in a digit. An int64 then holds the sum of 2**23 digits, so a sum may have 8 million terms."""
LOWEST = -25
HIGHEST = 25


@dataclass(frozen=True, eq=False)
class ExactSum(EqualByFields):
    """A sum of float64 arrays of one shape, exact to at least 40 bits below its largest term, or to 2**-1000.

    Attributes:
        level: Place of the leading digit: `lead` counts units of ``2**(40 * level)``.
        lead: Sums of the leading digits, int64, any shape.
        rest: Sums of the digits below, in units of ``2**(40 * (level - 1))``.
    """

    level: int
    lead: Integers
    rest: Integers

    def __post_init__(self) -> None:
        if not LOWEST <= self.level <= HIGHEST or self.lead.shape != self.rest.shape:
            raise ValueError(f"not a sum: level {self.level}, shapes {self.lead.shape} and {self.rest.shape}")
        if self.lead.dtype != np.int64 or self.rest.dtype != np.int64:
            raise ValueError(f"digits are int64, not {self.lead.dtype} and {self.rest.dtype}")

    @classmethod
    def of(cls, term: npt.ArrayLike) -> ExactSum:
        """The sum that has one term.

        Raises:
            ValueError: If the term is not finite or above 2**1000.
        """
        values = np.asarray(term, dtype=np.float64)
        level = _level(float(np.max(np.abs(values), initial=0.0)))
        scaled = values * 2.0 ** (-DIGIT * level)
        lead = np.trunc(scaled)
        rest = np.trunc((scaled - lead) * 2.0**DIGIT)
        return cls(level, np.asarray(lead, dtype=np.int64), np.asarray(rest, dtype=np.int64))

    @property
    def value(self) -> Floats:
        """The sum, rounded to float64."""
        lead = self.lead * 2.0 ** (DIGIT * self.level)
        return np.asarray(lead + self.rest * 2.0 ** (DIGIT * (self.level - 1)), dtype=np.float64)

    def merge(self, other: ExactSum) -> ExactSum:
        """The sum of all terms of both."""
        level = max(self.level, other.level)
        one, two = self._lifted(level), other._lifted(level)
        return ExactSum(level, np.asarray(one.lead + two.lead), np.asarray(one.rest + two.rest))

    def _lifted(self, level: int) -> ExactSum:
        """The same sum as if its terms had been cut with the leading digit at `level`."""
        if level == self.level:
            return self
        zeros = np.zeros_like(self.lead)
        return ExactSum(level, zeros, self.lead if level == self.level + 1 else zeros)


def _level(largest: float) -> int:
    """Place of the leading digit of a term whose largest element is `largest`."""
    if largest == 0:  # zeros must not cut off anything that they are added to
        return LOWEST
    exponent = int(np.frexp(largest)[1])
    level = max(-(-exponent // DIGIT) - 1, LOWEST)
    if not np.isfinite(largest) or level > HIGHEST - 1:
        raise ValueError(f"cannot sum terms as large as {largest}")
    return level

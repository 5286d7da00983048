"""Which scale to move where each token has a range of its own.

A linear y = x W whose tokens and columns each have 8 bits around zero errs, each token as a part of its
output's energy and but for one factor, by

    E(s) = Σ_x max_j(|x_j| / s_j)² / |y(x)|² · Σ_j s_j² w_j²  +  Σ_n max_j(s_j |W_jn|)² · Σ_j r_j² / s_j²

with w_j the size of row j of W and r_j² the energy of channel j, each token again a part of |y(x)|². Maxima
are about the same multiple of root mean squares once channels are even; then both terms are multiples of
(Σ_j r_j² / s_j²) (Σ_j s_j² w_j²), which by Cauchy and Schwarz is least where every channel adds the same to
either sum:

    s_j = sqrt(r_j / w_j)

The scale for one range of the tensor (`scales`) minds the channels' extremes instead, which may all be those
of one massive token. On a decoder's norms (SmolLM2-135M) this one left 1 to 10 % of the error; descending on
E(s) itself from there gained another 4 %.

Source: the scale of SmoothQuant (arXiv 2211.10438) at α = 1/2, with sizes instead of extremes; the
derivation is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnxq.statistics.moments import counted_energy

Floats = npt.NDArray[np.float64]

MOST_COLUMNS = 4096
"""Columns of a weight that are looked at; of a vocabulary's 50,000 a part tells the same."""
_REACH = 1e4
"""Greatest and least scale, relative to the middle one."""


class TokenObjective:
    """E(s) of the linears that read one activation.

    Args:
        rows: Tokens of the activation [R, C].
        weights: The weights [C, N] of all linears that read it.
        columns: Which channels have to share a scale, as equal numbers [C]; None if none has to.
    """

    def __init__(
        self, rows: np.ndarray, weights: Sequence[np.ndarray], columns: np.ndarray | None = None
    ) -> None:
        self._sizes = np.abs(np.asarray(rows, np.float32))
        self._columns = columns
        squares = np.square(self._sizes, dtype=np.float64)
        self._heights = [np.abs(_some(weight)).astype(np.float32) for weight in weights]
        self._powers = [np.square(height, dtype=np.float64).sum(axis=1) for height in self._heights]
        self._parts: list[Floats] = []
        self._energies: list[Floats] = []
        for weight in weights:
            outputs = np.asarray(rows, np.float32) @ _some(weight).astype(np.float32)
            part = 1 / counted_energy(np.square(outputs, dtype=np.float64).sum(axis=1))
            self._parts.append(part)
            self._energies.append(part @ squares)

    def error(self, scale: np.ndarray) -> float:
        """E(s) of a scale [C], summed over linears; comparable between scales only."""
        reach = np.square((self._sizes / scale).max(axis=1, initial=0.0))
        squared = np.square(scale)
        total = 0.0
        for height, power, part, energy in zip(
            self._heights, self._powers, self._parts, self._energies, strict=True
        ):
            steps = np.square((height * scale[:, None]).max(axis=0, initial=0.0)).sum()
            total += float((reach @ part) * (squared @ power) + steps * (energy / squared).sum())
        return total

    def scale(self) -> Floats:
        """The scale [C] of the closed form, its middle one 1; 1 for all if no channel counts."""
        energy = self._shared(np.sum(self._energies, axis=0))
        power = self._shared(
            sum(own * float(part.sum()) for own, part in zip(self._powers, self._parts, strict=True))
        )
        known = (energy > 0) & (power > 0)
        if not known.any():
            return np.ones(len(energy))
        # A channel that is always zero, or that meets rows of zeros, must set no range.
        ratio = np.where(energy > 0, np.inf, 0.0)
        ratio[known] = energy[known] / power[known]
        middle = float(np.median(ratio[known]))
        found: Floats = np.clip((ratio / middle) ** 0.25, 1 / _REACH, _REACH)
        return found

    def _shared(self, amounts: npt.ArrayLike) -> Floats:
        """Amounts of channels [C], added up over those that share a scale."""
        given = np.asarray(amounts, np.float64)
        if self._columns is None:
            return given
        sums = np.zeros(int(self._columns.max(initial=-1)) + 1)
        np.add.at(sums, self._columns, given)
        return np.asarray(sums[self._columns])


def _some(weight: np.ndarray) -> np.ndarray:
    return weight[:, :: -(-weight.shape[1] // MOST_COLUMNS)]

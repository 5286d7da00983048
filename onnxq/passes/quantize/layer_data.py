"""What calibration knows of one layer's input, divided into what a weight is fitted to and what judges it.

Half of the tokens that calibration keeps, those with odd keys, are taken out of the Gram matrix before
anything is fitted, and judge: by the error of the layer's own output, each token relative to its size. Where
no rows were kept, weights are judged by their expected error on all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from onnxq.passes.quantize.correction import Expectation, expect_own_noise, mean_error
from onnxq.statistics import SecondMoments, TensorStatistics
from onnxq.statistics.moments import counted_energy, of_one_size

Floats = npt.NDArray[np.float64]


class Quantizer(Protocol):
    """How the activations of a layer are rounded when the model runs."""

    def apply(self, values: np.ndarray) -> np.ndarray:
        """`values` [R, K] as the integer product sees them."""


class Judge(Protocol):
    """Tells the error of a layer's output."""

    basis: str
    """Of what tokens, in a word."""

    def error(self, values: np.ndarray, added: np.ndarray | None = None) -> float:
        """Error with `values` [K, N] as the weight and `added` [N] to the bias, as a part of the output."""


@dataclass(frozen=True, eq=False)
class LayerData:
    """The input of one layer.

    Attributes:
        moments: Without the rows that judge.
        noise: Squared error of each channel's rounding as a part of the token's mean square, as moments count
            every token the same, mean over tokens, [K].
        fitting: Rows [R, K] and the same rounded; None without rows.
        judging: Other rows and the same rounded.
    """

    moments: SecondMoments
    noise: Floats
    fitting: tuple[np.ndarray, np.ndarray] | None = None
    judging: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, seen: TensorStatistics | None, quantizer: Quantizer, channels: int) -> LayerData | None:
        """What `seen` tells of an input of so many channels; None without its moments."""
        moments = None if seen is None else seen.moments
        if seen is None or moments is None or moments.total.shape != (channels,):
            return None
        if seen.rows is None or len(seen.rows.keys) < 2:
            # What rounding is as a part of a token's size is not known without tokens; damping stands in.
            return cls(moments, np.zeros(channels))
        odd = (seen.rows.keys & np.uint64(1)).astype(bool)
        if odd.all() or not odd.any():
            odd = np.arange(len(odd)) % 2 == 1
        fitting, judging = seen.rows.values[~odd], seen.rows.values[odd]
        rounded = quantizer.apply(fitting)
        noise = _noise(fitting, rounded)
        rest = _without(moments, judging)
        return cls(rest, noise, (fitting, rounded), (judging, quantizer.apply(judging)))

    def expectation(self, probability: float = 1.0) -> Expectation:
        """The expected error that a weight is fitted to."""
        return expect_own_noise(self.moments.gram, self.noise * self.moments.count, probability)

    def mean_shift(self, weight: np.ndarray, values: np.ndarray) -> Floats | None:
        """What the bias lacks on average, [N]; None if no rows were kept to tell."""
        return None if self.fitting is None else mean_error(self.fitting[0], weight, self.fitting[1], values)

    def judge(self, weight: np.ndarray) -> Judge:
        """The judge of a layer with that exact weight [K, N]."""
        if self.judging is not None:
            return _RowJudge(*self.judging, weight)
        return _MomentJudge(self, weight)


class _RowJudge:
    """Judges by tokens that nothing was fitted to."""

    basis = "held-out"

    def __init__(self, rows: np.ndarray, rounded: np.ndarray, weight: np.ndarray) -> None:
        self.rounded, self.exact = rounded, rows @ weight.astype(np.float32)
        self.energy = counted_energy((self.exact.astype(np.float64) ** 2).sum(axis=1))

    def error(self, values: np.ndarray, added: np.ndarray | None = None) -> float:
        off = self.rounded @ values.astype(np.float32) - self.exact
        if added is not None:
            off = off + added
        return float(((off.astype(np.float64) ** 2).sum(axis=1) / self.energy).mean())


class _MomentJudge:
    """Judges by the mean over all tokens that calibration saw."""

    basis = "expected"

    def __init__(self, data: LayerData, weight: np.ndarray) -> None:
        self.form, self.weight = data.expectation(), np.asarray(weight, np.float64)
        self.energy = max(float(np.vdot(self.weight, self.form.gram @ self.weight)), 1e-300)

    def error(self, values: np.ndarray, added: np.ndarray | None = None) -> float:
        assert added is None, "what a bias lacks is known from rows, and those judge it"
        return self.form.loss(self.weight, values) / self.energy


def _without(moments: SecondMoments, rows: np.ndarray) -> SecondMoments:
    wide = rows.astype(np.float64)
    even = of_one_size(wide)
    return SecondMoments(
        moments.gram - even.T @ even, moments.total - wide.sum(axis=0), moments.count - len(wide)
    )


def _noise(rows: np.ndarray, rounded: np.ndarray) -> Floats:
    """Squared rounding error of each channel over the token's mean square, mean over tokens, [K]."""
    square = np.square((rounded - rows).astype(np.float64))
    square /= counted_energy(np.square(rows.astype(np.float64)).mean(axis=1, keepdims=True))
    return np.asarray(square.mean(axis=0))

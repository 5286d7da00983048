"""What calibration knows of one layer's input, divided into what a weight is fitted to and what judges it.

Half of the tokens that calibration keeps, those with odd keys, are taken out of the Gram matrix before
anything is fitted, and judge: by the error of the layer's own output, each token relative to its size.

Where calibration knows what quantized layers before make of the input, that is what weights are fitted to.
Then they are judged by their expected error on all tokens, since the rows kept are those of the float model.
So they are where no rows were kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from onnxq.passes.quantize.correction import Expectation, expect_own_noise, expect_paired, mean_error
from onnxq.statistics import PairedMoments, SecondMoments, TensorStatistics
from onnxq.statistics.moments import counted_energy, of_one_size

Floats = npt.NDArray[np.float64]


class Quantizer(Protocol):
    """How the activations of a layer are rounded when the model runs."""

    def apply(self, values: np.ndarray) -> np.ndarray:
        """`values` [R, K] as the integer product sees them."""

    def noise(self, values: np.ndarray | None = None) -> float:
        """Expected squared error of an element, of values like these [R, K] if they are given."""


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
        moments: Of the float model, without the rows that judge.
        noise: Squared error of each channel's own rounding, mean over tokens, [K]: as a part of the token's
            mean square, as moments count every token the same; plain where there are pairs, which are plain.
        fitting: Rows [R, K] and the same rounded; None without rows.
        judging: Other rows and the same rounded.
        pairs: Moments together with those behind quantized layers.
    """

    moments: SecondMoments
    noise: Floats
    fitting: tuple[np.ndarray, np.ndarray] | None = None
    judging: tuple[np.ndarray, np.ndarray] | None = None
    pairs: PairedMoments | None = None

    @classmethod
    def of(cls, seen: TensorStatistics | None, quantizer: Quantizer, channels: int) -> LayerData | None:
        """What `seen` tells of an input of so many channels; None without its moments."""
        pairs = None if seen is None else seen.paired
        moments = None if seen is None else seen.moments
        if pairs is not None and moments is None:
            moments = SecondMoments(pairs.gram_float, pairs.total, pairs.count)
        if seen is None or moments is None or moments.total.shape != (channels,):
            return None
        if seen.rows is None or len(seen.rows.keys) < 2:
            # What rounding is as a part of a token's size is not known without tokens; damping stands in.
            return cls(moments, np.full(channels, quantizer.noise() if pairs else 0.0), pairs=pairs)
        odd = (seen.rows.keys & np.uint64(1)).astype(bool)
        if odd.all() or not odd.any():
            odd = np.arange(len(odd)) % 2 == 1
        fitting, judging = seen.rows.values[~odd], seen.rows.values[odd]
        rounded = quantizer.apply(fitting)
        noise = _noise(fitting, rounded, relative=pairs is None)
        rest = _without(moments, judging)
        return cls(rest, noise, (fitting, rounded), (judging, quantizer.apply(judging)), pairs)

    @property
    def count(self) -> int:
        """Tokens that a weight is fitted to."""
        return self.moments.count if self.pairs is None else self.pairs.count

    def expectation(self, probability: float = 1.0) -> Expectation:
        """The expected error that a weight is fitted to."""
        if self.pairs is not None:
            return expect_paired(self.pairs, self.noise * self.count, probability)
        return expect_own_noise(self.moments.gram, self.noise * self.count, probability)

    def mean_shift(self, weight: np.ndarray, values: np.ndarray) -> Floats | None:
        """What the bias lacks on average, [N]; None if nothing is known of that."""
        shift = None
        if self.fitting is not None:
            shift = mean_error(self.fitting[0], weight, self.fitting[1], values)
        if self.pairs is not None:
            exact = np.asarray(values, np.float64)
            before = self.pairs.shift @ exact
            if shift is None:
                shift = (self.pairs.total / self.pairs.count) @ (np.asarray(weight, np.float64) - exact)
            shift = shift - before
        return shift

    def judge(self, weight: np.ndarray) -> Judge:
        """The judge of a layer with that exact weight [K, N]."""
        if self.judging is not None and self.pairs is None:
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
        known = data.moments if data.pairs is None else data.pairs
        self.count, self.total = known.count, known.total
        self.total_rounded = data.moments.total if data.pairs is None else data.pairs.total_quantized
        self.gram = data.moments.gram if data.pairs is None else data.pairs.gram_float
        self.energy = max(float(np.vdot(self.weight, self.gram @ self.weight)), 1e-300)

    def error(self, values: np.ndarray, added: np.ndarray | None = None) -> float:
        loss = self.form.loss(self.weight, values, self.gram)
        if added is not None:
            off = self.total @ self.weight - self.total_rounded @ np.asarray(values, np.float64)
            loss += float(self.count * (added @ added) - 2 * (added @ off))
        return loss / self.energy


def _without(moments: SecondMoments, rows: np.ndarray) -> SecondMoments:
    wide = rows.astype(np.float64)
    even = of_one_size(wide)
    return SecondMoments(
        moments.gram - even.T @ even, moments.total - wide.sum(axis=0), moments.count - len(wide)
    )


def _noise(rows: np.ndarray, rounded: np.ndarray, *, relative: bool) -> Floats:
    """Squared rounding error of each channel, perhaps over the token's mean square, mean over tokens, [K]."""
    square = np.square((rounded - rows).astype(np.float64))
    if relative:
        square /= counted_energy(np.square(rows.astype(np.float64)).mean(axis=1, keepdims=True))
    return np.asarray(square.mean(axis=0))

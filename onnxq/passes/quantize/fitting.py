"""The integer weight and the bias of one layer: made as asked for, but only where unseen tokens gain by it.

Half of the tokens that calibration keeps, those with odd keys, are taken out of the Gram matrix before
anything is fitted, and judge. A layer's error is that of its own output, each token relative to its size. A
step (the corrected or fed-back weight, then the bias) that does not lower it is undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from onnxq.passes.quantize.correction import (
    Expectation,
    best_weight,
    expect_own_noise,
    mean_error,
)
from onnxq.passes.quantize.rounding import feed_back, round_nearest
from onnxq.passes.quantize.weights import QuantizedWeight, WeightRange, symmetric_grid
from onnxq.statistics import TensorStatistics

Rounding = Literal["nearest", "feedback", "drop"]
Floats = npt.NDArray[np.float64]

QUIET = 1e-2
"""Tokens with less energy than this part of the median one count as if they had that."""


class Quantizer(Protocol):
    """How the activations of a layer are rounded when the model runs."""

    def apply(self, values: np.ndarray) -> np.ndarray:
        """`values` [R, K] as the integer product sees them."""

    def noise(self, values: np.ndarray | None) -> float:
        """Expected squared error of an element, of values like these [R, K] if they are given."""


@dataclass(frozen=True)
class Fit:
    """How weights and biases are made.

    Attributes:
        bits: Of the weight, 2 to 8.
        weight_range: How the scale of a column is chosen.
        rounding: "nearest"; "feedback" to keep the output instead of the weight; "drop" to keep it under
            rounding of activations that comes and goes at random.
        correct_weight: Whether the weight first makes up for the rounding of the activations ("drop" does).
        rank: Rank of that correction at most; 0 for any.
        correct_bias: Whether the bias makes the output right on average.
        probability: For "drop": how often an element is rounded.
        damping: Part of the mean of the Gram matrix's diagonal that is added to it for feedback.
    """

    bits: int = 8
    weight_range: WeightRange = "minmax"
    rounding: Rounding = "nearest"
    correct_weight: bool = False
    rank: int = 0
    correct_bias: bool = False
    probability: float = 0.5
    damping: float = 0.01

    @property
    def fits_weight(self) -> bool:
        """Whether the weight depends on the activations."""
        return self.rounding != "nearest" or self.correct_weight


@dataclass(frozen=True, eq=False)
class Fitted:
    """A layer in integers.

    Attributes:
        weight: Codes and scales.
        bias: float64 [N], or None without one.
        remark: What was kept and what it did to the error on unseen tokens; "" if nothing was tried.
    """

    weight: QuantizedWeight
    bias: np.ndarray | None
    remark: str = ""


def fit_layer(
    weight: np.ndarray,
    bias: np.ndarray | None,
    quantizer: Quantizer,
    seen: TensorStatistics | None,
    fit: Fit,
    *,
    least_scale: np.ndarray | float = 0.0,
) -> Fitted:
    """The integer weight and the bias for a layer ``x @ weight + bias``.

    Args:
        weight: [K, N], any float type.
        bias: [N], or None.
        quantizer: How x is rounded.
        seen: What calibration knows of x: its second moments to fit, rows to judge. What is missing is done
            without: the weight is rounded to nearest, or what was asked for is kept unjudged.
        fit: See there.
        least_scale: Scale that a column of the weight has at least.
    """
    data = _Data.of(seen, quantizer, weight.shape[0])
    nearest = _nearest(weight, fit, least_scale, data)
    if data is None or not (fit.fits_weight or fit.correct_bias):
        asked = fit.fits_weight or fit.correct_bias
        return Fitted(nearest, bias, "rounded to nearest: calibration has no moments of it" if asked else "")
    trial = _Trial(weight, bias, data)
    remarks: list[str] = []
    kept = trial.start(nearest)
    if fit.fits_weight:
        made, reason = _fitted_weight(weight, fit, least_scale, data)
        word = fit.rounding if fit.rounding != "nearest" else "corrected weight"
        kept = trial.step(kept, made, bias, word, reason, remarks)
    if fit.correct_bias:
        shift = data.mean_shift(weight, kept.weight.values)
        if shift is None:
            remarks.append("bias as it was: no rows were kept")
        else:
            shifted = shift if bias is None else bias.astype(np.float64) + shift
            kept = trial.step(kept, kept.weight, shifted, "bias correction", "", remarks)
    return Fitted(kept.weight, kept.bias, "; ".join(remarks))


def _nearest(
    weight: np.ndarray, fit: Fit, least_scale: np.ndarray | float, data: _Data | None
) -> QuantizedWeight:
    grid = symmetric_grid(
        weight,
        fit.bits,
        weight_range=fit.weight_range,
        importance=None if data is None else np.diag(data.own.second),
        least_scale=least_scale,
    )
    return QuantizedWeight(round_nearest(weight, grid), grid.scale[0])


def _fitted_weight(
    weight: np.ndarray, fit: Fit, least_scale: np.ndarray | float, data: _Data
) -> tuple[QuantizedWeight, str]:
    """The weight as asked for, and why it is not if so."""
    drop = fit.rounding == "drop"
    form = data.expectation(fit.probability if drop else 1.0)
    corrected = drop or fit.correct_weight
    target = best_weight(weight, form, rank=fit.rank) if corrected else weight
    grid = symmetric_grid(
        target,
        fit.bits,
        weight_range=fit.weight_range,
        importance=np.diag(form.second),
        least_scale=least_scale,
    )
    if fit.rounding == "nearest":
        return QuantizedWeight(round_nearest(target, grid), grid.scale[0]), ""
    rounded = feed_back(target, form.second, grid, damping=fit.damping)
    return QuantizedWeight(rounded.codes, grid.scale[0]), rounded.reason


@dataclass(frozen=True, eq=False)
class _Data:
    """Activations of one layer, divided: moments and rows to fit on, rows to judge on.

    Attributes:
        gram: X'X without the rows to judge on, [K, K].
        noise: Squared rounding error of each channel, summed over the same tokens, [K].
        fitting: Rows [R, K] and the same rounded; None without rows.
        judging: Other rows and the same rounded.
    """

    gram: Floats
    noise: Floats
    fitting: tuple[np.ndarray, np.ndarray] | None
    judging: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, seen: TensorStatistics | None, quantizer: Quantizer, channels: int) -> _Data | None:
        if seen is None or seen.moments is None or seen.moments.gram.shape != (channels, channels):
            return None
        gram, count = seen.moments.gram, seen.moments.count
        if seen.rows is None or len(seen.rows.keys) < 2:
            noise = np.full(channels, quantizer.noise(None) * count)
            return cls(gram, noise, None, None)
        odd = (seen.rows.keys & np.uint64(1)).astype(bool)
        if odd.all() or not odd.any():
            odd = np.arange(len(odd)) % 2 == 1
        fitting, judging = seen.rows.values[~odd], seen.rows.values[odd]
        wide = judging.astype(np.float64)
        gram, count = gram - wide.T @ wide, count - len(wide)
        rounded = quantizer.apply(fitting)
        noise = ((rounded - fitting).astype(np.float64) ** 2).mean(axis=0) * count
        return cls(gram, noise, (fitting, rounded), (judging, quantizer.apply(judging)))

    @property
    def own(self) -> Expectation:
        """The layer's own rounding alone."""
        return expect_own_noise(self.gram, self.noise)

    def expectation(self, probability: float) -> Expectation:
        """What the layer meets when the model runs, as far as it is known."""
        return expect_own_noise(self.gram, self.noise, probability)

    def mean_shift(self, weight: np.ndarray, values: np.ndarray) -> Floats | None:
        """What the bias lacks on average."""
        if self.fitting is None:
            return None
        rows, rounded = self.fitting
        return mean_error(rows, weight, rounded, values)


@dataclass(frozen=True, eq=False)
class _Candidate:
    weight: QuantizedWeight
    bias: np.ndarray | None
    error: float


class _Trial:
    """Candidates for one layer, each judged on the same tokens."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, data: _Data) -> None:
        self.bias, self.data = bias, data
        if data.judging is not None:
            self.exact = data.judging[0] @ weight.astype(np.float32)
            energy = (self.exact.astype(np.float64) ** 2).sum(axis=1)
            self.energy = np.maximum(energy, max(QUIET * float(np.median(energy)), 1e-300))

    def start(self, weight: QuantizedWeight) -> _Candidate:
        return _Candidate(weight, self.bias, self._error(weight, self.bias))

    def step(
        self,
        before: _Candidate,
        weight: QuantizedWeight,
        bias: np.ndarray | None,
        word: str,
        reason: str,
        remarks: list[str],
    ) -> _Candidate:
        """The new weight and bias if they are better, else what was before; a remark says which and why."""
        if reason:
            remarks.append(f"no {word}: {reason}")
            return before
        error = self._error(weight, bias)
        if self.data.judging is None:
            remarks.append(f"{word}, unjudged")
            return _Candidate(weight, bias, error)
        better = error < before.error
        change = f"held-out error {before.error:.3g} to {error:.3g}"
        remarks.append(f"{word}: {change}" if better else f"no {word}: {change}")
        return _Candidate(weight, bias, error) if better else before

    def _error(self, weight: QuantizedWeight, bias: np.ndarray | None) -> float:
        if self.data.judging is None:
            return float("nan")
        off = self.data.judging[1] @ weight.values - self.exact
        if bias is not None:
            off = off + (bias - (0.0 if self.bias is None else self.bias))
        return float(((off.astype(np.float64) ** 2).sum(axis=1) / self.energy).mean())

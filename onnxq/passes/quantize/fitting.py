"""The integer weight and the bias of one layer: made as asked for, and kept only where the error falls.

Each step (the corrected or fed-back weight, then the bias) is judged, as `layer_data` says, and undone if it
does not lower the error of the layer's output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxq.passes.quantize.correction import best_weight
from onnxq.passes.quantize.layer_data import LayerData, Quantizer
from onnxq.passes.quantize.rounding import DAMPING, damping_for, feed_back, round_nearest
from onnxq.passes.quantize.weights import QuantizedWeight, WeightRange, symmetric_grid
from onnxq.statistics import TensorStatistics

Rounding = Literal["nearest", "feedback", "drop"]


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
        damping: For feedback, with data without end; see `onnxq.passes.quantize.rounding.damping_for`.
    """

    bits: int = 8
    weight_range: WeightRange = "minmax"
    rounding: Rounding = "nearest"
    correct_weight: bool = False
    rank: int = 0
    correct_bias: bool = False
    probability: float = 0.5
    damping: float = DAMPING

    @property
    def fits_weight(self) -> bool:
        """Whether the weight depends on the activations."""
        return self.rounding != "nearest" or self.correct_weight

    @property
    def reads_activations(self) -> bool:
        """Whether anything does."""
        return self.fits_weight or self.correct_bias


@dataclass(frozen=True, eq=False)
class Fitted:
    """A layer in integers.

    Attributes:
        weight: Codes and scales.
        bias: float64 [N] where it was corrected, else as it was; None without one.
        remark: What was kept and what it did to the layer's error; "" if nothing was tried.
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
        seen: What calibration knows of x: second moments to fit, rows to judge. Without moments the weight
            goes to its nearest codes.
        fit: See there.
        least_scale: Scale that a column of the weight has at least.
    """
    data = LayerData.of(seen, quantizer, weight.shape[0]) if fit.reads_activations else None
    importance = None if data is None else np.diag(data.expectation().second)
    nearest = _round(weight, fit, importance, least_scale)
    if data is None:
        remark = "rounded to nearest: calibration has no moments of its input"
        return Fitted(nearest, bias, remark if fit.reads_activations else "")
    judge, remarks = data.judge(weight), []
    kept, error = nearest, judge.error(nearest.values)
    if fit.fits_weight:
        made, reason = _fitted_weight(weight, fit, data, least_scale)
        now = judge.error(made.values)
        word = fit.rounding if fit.rounding != "nearest" else "corrected weight"
        remarks.append(reason or _verdict(word, judge.basis, error, now))
        if not reason and now < error:
            kept, error = made, now
    if fit.correct_bias:
        shift = data.mean_shift(weight, kept.values)
        if shift is None:
            return Fitted(kept, bias, "; ".join([*remarks, "no bias correction: no rows were kept"]))
        now = judge.error(kept.values, shift)
        remarks.append(_verdict("bias correction", judge.basis, error, now))
        if now < error:
            bias = shift if bias is None else bias.astype(np.float64) + shift
    return Fitted(kept, bias, "; ".join(remarks))


def _verdict(word: str, basis: str, before: float, after: float) -> str:
    prefix = "" if after < before else "no "
    return f"{prefix}{word}: {basis} error {before:.3g} to {after:.3g}"


def _round(
    weight: np.ndarray, fit: Fit, importance: np.ndarray | None, least_scale: np.ndarray | float
) -> QuantizedWeight:
    """Every number to its nearest code."""
    grid = symmetric_grid(
        weight, fit.bits, weight_range=fit.weight_range, importance=importance, least_scale=least_scale
    )
    return QuantizedWeight(round_nearest(weight, grid), grid.scale[0])


def _fitted_weight(
    weight: np.ndarray, fit: Fit, data: LayerData, least_scale: np.ndarray | float
) -> tuple[QuantizedWeight, str]:
    """The weight as asked for; or, with the reason, the nearest codes."""
    drop = fit.rounding == "drop"
    form = data.expectation(fit.probability if drop else 1.0)
    target = best_weight(weight, form, rank=fit.rank) if drop or fit.correct_weight else weight
    importance = np.diag(form.second)
    if fit.rounding == "nearest":
        return _round(target, fit, importance, least_scale), ""
    grid = symmetric_grid(
        target, fit.bits, weight_range=fit.weight_range, importance=importance, least_scale=least_scale
    )
    damping = damping_for(len(weight), data.moments.count, fit.damping)
    rounded = feed_back(target, form.second, grid, damping=damping)
    reason = f"no {fit.rounding}: {rounded.reason}" if rounded.reason else ""
    return QuantizedWeight(rounded.codes, grid.scale[0]), reason

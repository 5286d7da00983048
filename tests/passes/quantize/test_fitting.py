"""A layer keeps what was fitted to it only where that lowers its error on tokens it was not fitted to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxq.passes.quantize.fitting import Fit, fit_layer
from onnxq.passes.quantize.layer_data import LayerData
from onnxq.passes.quantize.ranges import PerToken, params_for
from onnxq.statistics import SecondMoments, Statistic, TensorStatistics

K, N = 32, 20
WANTED = (Statistic.CHANNEL_EXTREMES, Statistic.SECOND_MOMENTS, Statistic.ROWS)


def activations(tokens: int = 2000, seed: int = 0, shift: float = 0.4) -> np.ndarray:
    """Correlated channels of uneven size: of few directions, so that errors can be made up for."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(K // 4, K))
    x = random.normal(size=(tokens, K // 4)) @ mixing + 0.1 * random.normal(size=(tokens, K)) + shift
    return x.astype(np.float32)


def weight_of(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(K, N)).astype(np.float32)


def params(x: np.ndarray, bits: int = 8):
    return params_for(float(x.min()), float(x.max()), bits)


def error(x: np.ndarray, weight: np.ndarray, fitted, quantizer, bias: np.ndarray | None = None) -> float:
    added = 0 if fitted.bias is None else fitted.bias - (0 if bias is None else bias)
    off = quantizer.apply(x) @ fitted.weight.values + added - x @ weight
    return float((off**2).mean())


@pytest.mark.parametrize("rounding", ["feedback", "drop"])
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_fitted_rounding_is_better_on_new_tokens(bits, rounding):
    x, new, weight = activations(), activations(seed=1), weight_of()
    seen = TensorStatistics.of(x, WANTED)
    quantizer = params(x)
    nearest = fit_layer(weight, None, quantizer, seen, Fit(bits))
    found = fit_layer(weight, None, quantizer, seen, Fit(bits, rounding=rounding))
    assert found.remark.startswith(f"{rounding}: held-out error")
    assert error(new, weight, found, quantizer) < 0.5 * error(new, weight, nearest, quantizer)
    assert np.abs(found.weight.codes).max() <= 2 ** (bits - 1) - 1


@pytest.mark.parametrize("fit", [Fit(4, rounding="feedback"), Fit(4, rounding="drop", correct_bias=True)])
def test_what_does_not_carry_over_is_not_kept(fit):
    """Moments of data that have nothing to do with the rows that judge."""
    x, weight = activations(), weight_of()
    lie = TensorStatistics.of(x[:, ::-1] * np.geomspace(1e-3, 1e3, K, dtype=np.float32), WANTED)
    honest = TensorStatistics.of(np.random.default_rng(0).normal(size=(3000, K)).astype("f"), WANTED)
    seen = replace(lie, rows=honest.rows)
    quantizer = params(honest.rows.values)
    found = fit_layer(weight, None, quantizer, seen, fit)
    nearest = fit_layer(weight, None, quantizer, None, replace(fit, rounding="nearest", correct_bias=False))
    assert found.remark.startswith(f"no {fit.rounding}: held-out error")
    np.testing.assert_array_equal(found.weight.codes, nearest.weight.codes)


def test_the_rows_that_judge_are_not_among_those_fitted_to():
    x = activations(600)
    seen = TensorStatistics.of(x, WANTED)
    data = LayerData.of(seen, params(x), K)
    judging, fitting = data.judging[0], data.fitting[0]
    assert len(judging) + len(fitting) == 600
    assert not set(map(bytes, judging)) & set(map(bytes, fitting))
    np.testing.assert_allclose(data.moments.gram, SecondMoments.of(fitting).gram, rtol=1e-9, atol=1e-9)
    assert data.moments.count == len(fitting)


@pytest.mark.parametrize("bias", [None, np.linspace(-1, 1, N).astype(np.float32)])
@pytest.mark.parametrize("per_token", [False, True])
def test_bias_correction_takes_the_mean_error_away(bias, per_token):
    x, new, weight = activations(shift=3.0), activations(seed=1, shift=3.0), weight_of()
    quantizer = PerToken(4) if per_token else params(x, 4)
    seen = TensorStatistics.of(x, WANTED)
    plain = fit_layer(weight, bias, quantizer, seen, Fit(3))
    found = fit_layer(weight, bias, quantizer, seen, Fit(3, correct_bias=True))
    assert "bias correction: held-out error" in found.remark
    assert found.bias is not None
    assert error(new, weight, found, quantizer, bias) < 0.7 * error(new, weight, plain, quantizer, bias)


def test_without_rows_the_error_judged_is_that_of_all_tokens_each_of_one_size():
    x, weight = activations(shift=1.0), weight_of()
    x *= np.geomspace(0.1, 10, len(x), dtype=np.float32)[:, None]
    values = np.rint(weight * 8) / 8
    seen = TensorStatistics.of(x, (Statistic.SECOND_MOMENTS,))
    judge = LayerData.of(seen, params(x), K).judge(weight)
    even = x.astype("d") / np.sqrt((x.astype("d") ** 2).mean(axis=1, keepdims=True))
    relative = ((even @ (values - weight)) ** 2).sum() / ((even @ weight) ** 2).sum()
    assert judge.basis == "expected"
    assert judge.error(values) == pytest.approx(relative, rel=1e-6)


def test_without_moments_weights_go_to_their_nearest_codes_and_it_says_so():
    x, weight = activations(), weight_of()
    seen = TensorStatistics.of(x, (Statistic.CHANNEL_EXTREMES,))
    found = fit_layer(weight, None, params(x), seen, Fit(4, rounding="feedback", correct_bias=True))
    assert "no moments" in found.remark
    np.testing.assert_array_equal(
        found.weight.codes, fit_layer(weight, None, params(x), None, Fit(4)).weight.codes
    )


def test_without_rows_feedback_is_judged_by_moments():
    x, weight = activations(), weight_of()
    seen = TensorStatistics.of(x, (Statistic.SECOND_MOMENTS,))
    found = fit_layer(weight, None, params(x), seen, Fit(4, rounding="feedback", correct_bias=True))
    assert found.remark.startswith("feedback: expected error")
    assert "no bias correction: no rows" in found.remark


def test_an_activation_that_was_never_other_than_zero():
    seen = TensorStatistics.of(np.zeros((50, K), np.float32), WANTED)
    found = fit_layer(weight_of(), None, params_for(0, 0), seen, Fit(4, rounding="drop", correct_bias=True))
    assert "ever other than zero" in found.remark
    assert np.isfinite(found.weight.scale).all()

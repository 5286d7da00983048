"""Closed forms against sampling and against least squares on the data themselves."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.quantize.correction import best_weight, expect_own_noise, expect_paired, mean_error
from onnxq.statistics import PairedMoments

TOKENS, K, N = 400, 12, 5


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations, the same behind something that shifts and blurs them, and a weight."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(TOKENS, K)) @ random.normal(size=(K, K)) + 0.5
    quantized = np.rint(x * 0.97 + 0.1)
    return x, quantized, random.normal(size=(K, N))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_expectation_is_the_mean_over_dropped_errors(probability: float) -> None:
    x, quantized, weight = drawn()
    values = weight + np.random.default_rng(1).normal(size=weight.shape) * 0.1
    form = expect_paired(PairedMoments.of(x, quantized), np.zeros(K), probability)
    found = form.loss(weight, values, x.T @ x)
    random = np.random.default_rng(2)
    losses = []
    for _ in range(400):
        mixed = np.where(random.random(x.shape) < probability, quantized, x)
        losses.append(((x @ weight - mixed @ values) ** 2).sum())
    assert found == pytest.approx(np.mean(losses), rel=0.01)


def test_own_noise_is_that_of_independent_errors() -> None:
    x, _, weight = drawn()
    values = weight * 1.05
    random = np.random.default_rng(3)
    step = 0.8
    losses = [
        ((x @ weight - (x + random.uniform(-step / 2, step / 2, x.shape)) @ values) ** 2).sum()
        for _ in range(400)
    ]
    form = expect_own_noise(x.T @ x, np.full(K, TOKENS * step**2 / 12))
    assert form.loss(weight, values, x.T @ x) == pytest.approx(np.mean(losses), rel=0.01)


def test_the_best_weight_is_least_squares_on_the_quantized_activations() -> None:
    x, quantized, weight = drawn()
    form = expect_paired(PairedMoments.of(x, quantized), np.zeros(K))
    exact = np.linalg.lstsq(quantized, x @ weight, rcond=None)[0]
    np.testing.assert_allclose(best_weight(weight, form, damping=0.0), exact, atol=1e-8)


def test_the_best_weight_leaves_rows_of_zeros_alone() -> None:
    x, quantized, weight = drawn()
    weight[[2, 7]] = 0
    best = best_weight(weight, expect_paired(PairedMoments.of(x, quantized), np.zeros(K)))
    assert (best[[2, 7]] == 0).all()
    assert not np.allclose(best[0], weight[0])


def test_a_correction_of_low_rank_is_the_best_of_its_rank() -> None:
    x, quantized, weight = drawn()
    form = expect_paired(PairedMoments.of(x, quantized), np.zeros(K))
    gram = x.T @ x
    full = best_weight(weight, form, damping=1e-9)
    losses = []
    for rank in range(1, N):
        found = best_weight(weight, form, damping=1e-9, rank=rank)
        assert np.linalg.matrix_rank(found - weight, tol=1e-8) == rank
        losses.append(form.loss(weight, found, gram))
        left, sizes, right = np.linalg.svd(full - weight, full_matrices=False)
        plain = weight + (left[:, :rank] * sizes[:rank]) @ right[:rank]
        assert losses[-1] <= form.loss(weight, plain, gram) + 1e-9
    losses = [form.loss(weight, weight, gram), *losses, form.loss(weight, full, gram)]
    assert losses == sorted(losses, reverse=True)


def test_the_mean_error_is_what_is_missing_on_average() -> None:
    x, quantized, weight = drawn()
    values = np.rint(weight * 4) / 4
    shift = mean_error(x, weight, quantized, values)
    np.testing.assert_allclose((x @ weight - quantized @ values - shift).mean(axis=0), 0, atol=1e-12)

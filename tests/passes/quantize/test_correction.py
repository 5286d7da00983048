"""Closed forms against sampling and against least squares on the data themselves."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.quantize.correction import Expectation, best_weight, expect_own_noise, mean_error

TOKENS, K, N = 400, 12, 5
NOISE = TOKENS * np.linspace(0.01, 0.2, K)
"""Of each channel, summed over tokens."""


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Activations and a weight."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(TOKENS, K)) @ random.normal(size=(K, K)) + 0.5
    return x, random.normal(size=(K, N))


def form_of(x: np.ndarray) -> Expectation:
    return expect_own_noise(x.T @ x, NOISE)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_expectation_is_the_mean_over_errors_that_come_and_go(probability: float) -> None:
    x, weight = drawn()
    values = weight * 1.05
    random = np.random.default_rng(3)
    step = 0.8
    losses = []
    for _ in range(400):
        error = random.uniform(-step / 2, step / 2, x.shape) * (random.random(x.shape) < probability)
        losses.append(((x @ weight - (x + error) @ values) ** 2).sum())
    form = expect_own_noise(x.T @ x, np.full(K, TOKENS * step**2 / 12), probability)
    assert form.loss(weight, values) == pytest.approx(np.mean(losses), rel=0.01)


def test_the_best_weight_is_least_squares_with_the_noise_as_tokens_of_their_own() -> None:
    x, weight = drawn()
    tokens = np.concatenate([x, np.diag(np.sqrt(NOISE))])
    wanted = np.concatenate([x @ weight, np.zeros((K, N))])
    exact = np.linalg.lstsq(tokens, wanted, rcond=None)[0]
    np.testing.assert_allclose(best_weight(weight, form_of(x), damping=0.0), exact, atol=1e-8)


def test_the_best_weight_leaves_rows_of_zeros_alone() -> None:
    x, weight = drawn()
    weight[[2, 7]] = 0
    best = best_weight(weight, form_of(x))
    assert (best[[2, 7]] == 0).all()
    assert not np.allclose(best[0], weight[0])


def test_a_correction_of_low_rank_is_the_best_of_its_rank() -> None:
    x, weight = drawn()
    form = form_of(x)
    full = best_weight(weight, form, damping=1e-9)
    losses = []
    for rank in range(1, N):
        found = best_weight(weight, form, damping=1e-9, rank=rank)
        assert np.linalg.matrix_rank(found - weight, tol=1e-8) == rank
        losses.append(form.loss(weight, found))
        left, sizes, right = np.linalg.svd(full - weight, full_matrices=False)
        plain = weight + (left[:, :rank] * sizes[:rank]) @ right[:rank]
        assert losses[-1] <= form.loss(weight, plain) + 1e-9
    losses = [form.loss(weight, weight), *losses, form.loss(weight, full)]
    assert losses == sorted(losses, reverse=True)


def test_the_mean_error_is_what_is_missing_on_average() -> None:
    x, weight = drawn()
    quantized = np.rint(x * 0.97 + 0.1)
    values = np.rint(weight * 4) / 4
    shift = mean_error(x, weight, quantized, values)
    np.testing.assert_allclose((x @ weight - quantized @ values - shift).mean(axis=0), 0, atol=1e-12)

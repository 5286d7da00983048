"""The scale for products with a range for each token: what it minimises, and what it must not be led by."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.migrate.token_scale import TokenObjective
from onnxq.passes.quantize.ranges import PerToken
from onnxq.passes.quantize.weights import quantize_weight

K, N, TOKENS = 48, 64, 256


def uneven(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and a weight whose channels differ a hundredfold in size."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(TOKENS, K)) * 10 ** random.uniform(-1, 1, K)
    weight = random.normal(size=(K, N)) * 10 ** random.uniform(-0.5, 0.5, (K, 1))
    return rows.astype(np.float32), weight.astype(np.float32)


def rounded_error(rows: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> float:
    """What 8 bits really cost: a scale for each token and for each column, every token counting the same."""
    exact = rows @ weight
    found = PerToken(8).apply(rows / scale) @ quantize_weight(weight * scale[:, None]).values
    return float((np.square(found - exact).sum(axis=1) / np.square(exact).sum(axis=1)).mean())


@pytest.mark.parametrize("seed", range(4))
def test_it_takes_most_of_the_error_away_and_says_so(seed: int) -> None:
    rows, weight = uneven(seed)
    objective, ones = TokenObjective(rows, [weight]), np.ones(K)
    scale = objective.scale()
    foretold = objective.error(scale) / objective.error(ones)
    made = rounded_error(rows, weight, scale) / rounded_error(rows, weight, ones)
    assert made < 0.5
    assert foretold == pytest.approx(made, rel=0.4)


@pytest.mark.parametrize("seed", range(4))
def test_no_scale_nearby_is_much_better(seed: int) -> None:
    objective = TokenObjective(*(lambda rows, weight: (rows, [weight]))(*uneven(seed)))
    random, scale = np.random.default_rng(seed), objective.scale()
    least = min(objective.error(scale * np.exp(0.1 * random.normal(size=K))) for _ in range(40))
    assert objective.error(scale) < 1.05 * least


def test_massive_tokens_count_no_more_than_others() -> None:
    """The error is relative to each token's output: a thousand times the token is the same token."""
    rows, weight = uneven()
    massive = rows * np.where(np.arange(TOKENS)[:, None] % 50 == 0, 1000, 1).astype(np.float32)
    plain, odd = (TokenObjective(each, [weight]).scale() for each in (rows, massive))
    np.testing.assert_allclose(plain, odd, rtol=1e-4)


def test_channels_that_share_a_column_share_a_scale() -> None:
    rows, weight = uneven()
    columns = np.arange(K) % (K // 3)
    scale = TokenObjective(rows, [weight], columns).scale()
    np.testing.assert_array_equal(scale[: K // 3], scale[K // 3 : 2 * (K // 3)])
    assert TokenObjective(rows, [weight], columns).error(scale) < TokenObjective(rows, [weight]).error(
        np.ones(K)
    )


def test_channels_that_meet_zeros_set_no_range() -> None:
    rows, weight = uneven()
    rows[:, 7] *= 1e3
    weight[7] = 0
    objective = TokenObjective(rows, [weight])
    assert np.abs(rows[:, 7] / objective.scale()[7]).max() < np.abs(rows / objective.scale()).max()
    assert rounded_error(rows, weight, objective.scale()) < 1e-3


@pytest.mark.parametrize("dead", ["rows", "weight"])
def test_nothing_is_moved_where_nothing_counts(dead: str) -> None:
    rows, weight = uneven()
    (rows if dead == "rows" else weight)[:] = 0
    np.testing.assert_array_equal(TokenObjective(rows, [weight]).scale(), np.ones(K))

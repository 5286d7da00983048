"""Rounding with feedback against brute force, and against what its algebra promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxq.passes.quantize.rounding import (
    BLOCK,
    DAMPING,
    Grid,
    damping_for,
    feed_back,
    round_nearest,
)


def round_feedback(weight: np.ndarray, gram: np.ndarray, grid: Grid, damping: float = DAMPING) -> np.ndarray:
    return feed_back(weight, gram, grid, damping=damping).codes


def drawn(rows: int, columns: int, seed: int, tokens: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and the Gram matrix of correlated activations of uneven channels."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(tokens, rows)) @ (np.eye(rows) + random.normal(size=(rows, rows)) * 0.5)
    x = mixed * random.uniform(0.1, 5, rows)
    return random.normal(size=(rows, columns)), x.T @ x


def symmetric(weight: np.ndarray, bits: int, group: int = 0) -> Grid:
    parts = [weight] if not group else [weight[a : a + group] for a in range(0, len(weight), group)]
    scale = np.stack([np.abs(part).max(axis=0) / (2 ** (bits - 1) - 1) for part in parts])
    return Grid(scale, bits=bits, group=group)


def asymmetric(weight: np.ndarray, bits: int, group: int = 0) -> Grid:
    parts = [weight] if not group else [weight[a : a + group] for a in range(0, len(weight), group)]
    low = np.stack([np.minimum(part.min(axis=0), 0) for part in parts])
    high = np.stack([np.maximum(part.max(axis=0), 0) for part in parts])
    scale = (high - low) / (2**bits - 1)
    return Grid(scale, np.rint(-low / scale), bits, group)


def loss(weight: np.ndarray, gram: np.ndarray, grid: Grid, codes: np.ndarray) -> float:
    error = weight - grid.values(codes)
    return float(np.trace(error.T @ gram @ error))


def plain_feedback(weight: np.ndarray, gram: np.ndarray, grid: Grid, damping: float) -> np.ndarray:
    """GPTQ as its paper has it: inverse Hessian, Cholesky, one row at a time, all later rows updated."""
    rows = len(weight)
    damped = gram + np.eye(rows) * damping * np.diag(gram).mean()
    order = np.argsort(-np.diag(gram), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    moved, groups = weight[order].copy(), grid.groups_of(rows)[order]
    codes = np.empty(weight.shape)
    zeros = np.zeros_like(grid.scale) if grid.zero_point is None else grid.zero_point
    for row in range(rows):
        scale, zero = grid.scale[groups[row]], zeros[groups[row]]
        codes[order[row]] = np.clip(np.rint(moved[row] / scale) + zero, grid.least, grid.most)
        error = (moved[row] - (codes[order[row]] - zero) * scale) / upper[row, row]
        moved[row + 1 :] -= np.outer(upper[row, row + 1 :], error)
    return codes


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("grid_of", [symmetric, asymmetric])
def test_nearest_is_nearest(grid_of, bits):
    weight, _ = drawn(6, 4, 0)
    grid = grid_of(weight, bits)
    codes = round_nearest(weight, grid)
    every = np.arange(grid.least, grid.most + 1)
    for row, column in np.ndindex(weight.shape):
        zero = 0 if grid.zero_point is None else grid.zero_point[0, column]
        distances = np.abs((every - zero) * grid.scale[0, column] - weight[row, column])
        found = abs((int(codes[row, column]) - zero) * grid.scale[0, column] - weight[row, column])
        assert found <= distances.min() + 1e-12


@pytest.mark.parametrize("group", [0, 16])
@pytest.mark.parametrize("grid_of", [symmetric, asymmetric])
@pytest.mark.parametrize("rows", [5, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_blocks_give_what_the_plain_algorithm_gives(rows, grid_of, group):
    weight, gram = drawn(rows, 7, rows)
    grid = grid_of(weight, 4, group)
    np.testing.assert_array_equal(
        round_feedback(weight, gram, grid), plain_feedback(weight, gram, grid, 0.01)
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(6))
def test_feedback_keeps_the_output_better(seed, bits):
    weight, gram = drawn(48, 16, seed)
    grid = symmetric(weight, bits)
    fed = loss(weight, gram, grid, round_feedback(weight, gram, grid))
    assert fed < 0.9 * loss(weight, gram, grid, round_nearest(weight, grid))


@pytest.mark.parametrize(("tokens", "most"), [(96, 0.6), (192, 0.95), (768, 1.0)])
def test_feedback_from_few_tokens_suits_other_tokens(tokens, most):
    """The fewer tokens, the more of what they say of the quieter directions is chance."""
    fixed, fitting = 0.0, 0.0
    for seed in range(6):
        random = np.random.default_rng(seed)
        directions, _ = np.linalg.qr(random.normal(size=(96, 96)))
        mixed = directions * np.arange(1, 97) ** -0.25
        weight = random.normal(size=(96, 24))
        few, many = (random.normal(size=(count, 96)) @ mixed.T for count in (tokens, 8000))
        grid, gram, others = symmetric(weight, 4), few.T @ few, many.T @ many
        fixed += loss(weight, others, grid, round_feedback(weight, gram, grid))
        damping = damping_for(96, tokens)
        fitting += loss(weight, others, grid, round_feedback(weight, gram, grid, damping=damping))
    assert fitting < most * fixed


def test_damping_falls_to_the_least_with_data_without_end():
    assert damping_for(576, 10**9, 0.02) == pytest.approx(0.02, rel=1e-4)
    assert damping_for(576, 0) > damping_for(576, 576) > damping_for(576, 5760) > DAMPING


def test_feedback_is_close_to_the_best_there_is():
    fed, nearest = [], []
    for seed in range(24):
        weight, gram = drawn(6, 1, seed)
        grid = symmetric(weight, 2)
        every = [np.array(codes)[:, None] for codes in itertools.product((-1, 0, 1), repeat=6)]
        best = min(loss(weight, gram, grid, codes) for codes in every)
        codes = round_feedback(weight, gram, grid, damping=1e-6)
        fed.append(loss(weight, gram, grid, codes) / best)
        nearest.append(loss(weight, gram, grid, round_nearest(weight, grid)) / best)
    assert min(fed) >= 1 - 1e-9
    assert np.median(fed) < 1.6
    assert np.median(fed) < 0.7 * np.median(nearest)


def test_one_row_is_rounded_to_the_optimum():
    weight, gram = drawn(1, 20, 3)
    grid = symmetric(np.vstack([weight * 1.7, weight * 0.3]), 4)
    np.testing.assert_array_equal(round_feedback(weight, gram, grid), round_nearest(weight, grid))


def test_uncorrelated_channels_have_nothing_to_feed_back():
    weight, gram = drawn(40, 5, 4)
    grid = symmetric(weight, 4)
    found = round_feedback(weight, np.diag(np.diag(gram)), grid)
    np.testing.assert_array_equal(found, round_nearest(weight, grid))


@pytest.mark.parametrize("group", [0, 8])
def test_the_order_of_the_channels_does_not_matter(group):
    weight, gram = drawn(64, 9, 5)
    grid = symmetric(weight, 4, group)
    size = group or 64
    order = np.concatenate(
        [np.random.default_rng(0).permutation(size) + start for start in range(0, 64, size)]
    )
    shuffled = round_feedback(weight[order], gram[np.ix_(order, order)], grid)
    np.testing.assert_array_equal(shuffled, round_feedback(weight, gram, grid)[order])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("grid_of", [symmetric, asymmetric])
def test_codes_never_leave_the_grid(grid_of, bits):
    weight, gram = drawn(32, 8, bits)
    grid = grid_of(weight * 0.3, bits)  # a grid too narrow, so that feedback pushes against its ends
    codes = round_feedback(weight, gram, grid)
    assert codes.dtype == (np.int8 if grid_of is symmetric else np.uint8)
    assert codes.min() >= grid.least
    assert codes.max() <= grid.most
    assert codes.max() == grid.most


def test_rows_no_activation_touches_go_to_their_nearest_code():
    weight, gram = drawn(32, 8, 7)
    gram[[3, 9]] = 0
    gram[:, [3, 9]] = 0
    grid = symmetric(weight, 3)
    found = feed_back(weight, gram, grid)
    assert found.reason == ""
    np.testing.assert_array_equal(found.codes[[3, 9]], round_nearest(weight, grid)[[3, 9]])
    live = np.setdiff1d(np.arange(32), [3, 9])
    alone = round_feedback(weight[live], gram[np.ix_(live, live)], grid)
    np.testing.assert_array_equal(found.codes[live], alone)


@pytest.mark.parametrize("grid_of", [symmetric, asymmetric])
def test_rows_of_zeros_stay_zeros(grid_of):
    weight, gram = drawn(32, 8, 12)
    weight[[0, 5, 31]] = 0
    grid = grid_of(weight, 4)
    found = feed_back(weight, gram, grid)
    assert (grid.values(found.codes)[[0, 5, 31]] == 0).all()
    assert not np.array_equal(found.codes, round_nearest(weight, grid))


@pytest.mark.parametrize(
    ("gram", "reason"),
    [
        (np.zeros((4, 4)), "was ever other than zero"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.array([[1.0, 3, 0, 0], [3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_a_gram_matrix_of_no_use_leaves_the_nearest_codes_and_says_why(gram, reason):
    weight, _ = drawn(4, 3, 8)
    grid = symmetric(weight, 4)
    found = feed_back(weight, gram, grid)
    assert reason in found.reason
    np.testing.assert_array_equal(found.codes, round_nearest(weight, grid))


def test_fewer_tokens_than_channels_are_no_obstacle():
    weight, gram = drawn(48, 6, 9, tokens=10)
    grid = symmetric(weight, 4)
    found = feed_back(weight, gram, grid)
    assert found.reason == ""
    assert loss(weight, gram, grid, found.codes) < 0.2 * loss(weight, gram, grid, round_nearest(weight, grid))


def test_a_weight_too_large_for_one_strip_is_rounded_as_its_parts_are(monkeypatch):
    weight, gram = drawn(40, 9, 10)
    grid = asymmetric(weight, 4, 8)
    whole = round_nearest(weight, grid), round_feedback(weight, gram, grid)
    for name in ("_STRIP", "_FED_STRIP"):
        monkeypatch.setattr(f"onnxq.passes.quantize.rounding.{name}", 100)  # two columns
    np.testing.assert_array_equal(round_nearest(weight, grid), whole[0])
    np.testing.assert_array_equal(round_feedback(weight, gram, grid), whole[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grid(np.ones((1, 3)), bits=9),
        lambda: Grid(np.ones(3)),
        lambda: Grid(np.ones((2, 3))),
        lambda: Grid(np.ones((1, 3)), np.zeros((1, 2))),
        lambda: round_nearest(np.ones((5, 3)), Grid(np.ones((2, 3)), group=2)),
        lambda: round_feedback(np.ones((5, 3)), np.eye(4), Grid(np.ones((1, 3)))),
    ],
)
def test_what_does_not_fit_is_refused(make):
    with pytest.raises(ValueError, match=r"\d"):
        make()

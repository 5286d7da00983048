"""Which channels leave: the range without them is the narrowest there is, and the error is the true one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.passes.migrate.outliers import Product, choose_channels, counts_up_to, rank_channels
from onnxq.passes.migrate.rounding_trial import AS_SEEN, TrialBits
from onnxq.passes.quantize.ranges import params_for
from onnxq.passes.quantize.weights import quantize_weight


def span_without(product: Product, channels: tuple[int, ...]) -> float:
    """The range of the channels that are left and reach any output, zero included."""
    rest = product.live
    rest[list(channels)] = False
    return product.high[rest].max(initial=0.0) - product.low[rest].min(initial=0.0)


@st.composite
def products(draw: st.DrawFn) -> Product:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 7))
    middle, reach = (
        random.normal(size=count) * draw(st.sampled_from([0.0, 3.0])),
        random.lognormal(size=count),
    )
    weight = random.normal(size=(count, 3)) * (random.random((count, 1)) < 0.8)
    return Product(middle - reach, middle + reach, weight)


@settings(max_examples=200, deadline=None)
@given(products(), st.integers(0, 7))
def test_no_other_channels_would_leave_a_narrower_range(product: Product, count: int) -> None:
    found = rank_channels(product, count)
    live = np.flatnonzero(product.live)
    assert len(found) == min(count, len(live))
    assert set(found) <= set(live), "a channel that reaches nothing need not leave"
    assert (np.diff(found) > 0).all()
    narrowest = min(span_without(product, each) for each in combinations(live, len(found)))
    assert span_without(product, tuple(found)) == pytest.approx(narrowest)


@settings(max_examples=50, deadline=None)
@given(products(), st.integers(0, 5))
def test_the_count_is_the_least_that_is_nearly_best(product: Product, limit: int) -> None:
    choice = choose_channels(product, limit)
    sets = [rank_channels(product, count) for count in counts_up_to(limit)]
    errors = [product.error(channels) for channels in sets]
    assert choice.before == errors[0]
    assert choice.after <= 1.05 * min(errors)
    taken = next(index for index, each in enumerate(sets) if len(each) == len(choice.channels))
    assert all(error > 1.05 * min(errors) for error in errors[:taken])


@pytest.mark.parametrize("bits", [AS_SEEN, TrialBits(4, 8, 0.0), TrialBits(6, 4, 0.2)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_error_on_tokens_is_that_of_the_integer_product(seed: int, bits: TrialBits) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(200, 12)).astype(np.float32)
    rows[:, 5] *= 30
    weight = random.normal(size=(12, 8))
    product = Product(rows.min(axis=0).astype(float), rows.max(axis=0).astype(float), weight, rows, bits)
    for channels in ([], [5], [2, 5]):
        rest = np.delete(np.arange(12), channels)
        ends = (float(end) * (1 + bits.margin) for end in (rows[:, rest].min(), rows[:, rest].max()))
        grid = params_for(*ends, bits.activation)
        rounded = grid.apply(rows[:, rest]) @ quantize_weight(weight[rest], bits.weight).values
        expected = ((rounded - rows[:, rest] @ weight[rest]) ** 2).sum(axis=1).mean()
        assert product.error(np.array(channels, int)) == pytest.approx(expected, rel=1e-3)


def test_one_towering_channel_leaves_and_makes_the_product_far_better() -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(400, 64)).astype(np.float32)
    rows[:, 7] *= 60
    low, high = rows.min(axis=0).astype(float), rows.max(axis=0).astype(float)
    weight = random.normal(size=(64, 32))
    for tokens in (None, rows):
        choice = choose_channels(Product(low, high, weight, tokens), 8)
        assert 7 in choice.channels
        assert choice.gain > 50


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize(("weight", "activation", "worth"), [(8, 8, True), (8, 4, True), (3, 8, False)])
def test_bits_decide_what_leaving_is_worth(weight: int, activation: int, worth: bool, measured: bool) -> None:
    """Coarse weights err by themselves, whatever the range of the activation."""
    random = np.random.default_rng(4)
    rows = random.normal(size=(300, 64)).astype(np.float32)
    rows[:, 7] *= 4
    weights = random.normal(size=(64, 32))
    weights[7] /= 4  # it matters no more than the others: only the range makes it odd
    low, high = rows.min(axis=0).astype(float), rows.max(axis=0).astype(float)
    bits = TrialBits(weight, activation, 0.0)
    choice = choose_channels(Product(low, high, weights, rows if measured else None, bits), 8)
    assert (choice.gain > 2) == worth

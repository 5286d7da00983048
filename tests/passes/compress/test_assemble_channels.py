"""Pairs of like channels become one, at exactly the cost that was told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.passes.compress.assemble_channels import AssembleChannels
from onnxq.passes.compress.pairing import choose_pairs, merging_costs, merging_error
from onnxq.passes.migrate.disassemble_channels import DisassembleChannels
from onnxq.pipeline import apply_pass
from onnxq.statistics import ChannelExtremes, SecondMoments, Statistics, TensorStatistics
from tests.graphs import check, model_of, ops_of, outputs_of

seeds = st.integers(0, 2**32 - 1)


def merged(x: np.ndarray, weight: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The output with each pair's channels replaced by their mean."""
    mean = x.copy()
    for one, two in pairs:
        mean[:, one] = mean[:, two] = (x[:, one] + x[:, two]) / 2
    return mean @ weight


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 8), st.integers(1, 5))
def test_the_cost_of_a_pair_is_its_error(seed: int, channels: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    x, weight = random.normal(size=(20, channels)), random.normal(size=(channels, columns))
    everyone = np.arange(channels)
    costs = merging_costs(x.T @ x, weight, everyone, everyone)
    for one in range(channels):
        for two in range(channels):
            error = merged(x, weight, np.array([[one, two]])) - x @ weight
            assert costs[one, two] == pytest.approx((error**2).sum(), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 12), st.integers(0, 8))
def test_the_error_of_all_pairs_together_is_exact(seed: int, channels: int, count: int) -> None:
    random = np.random.default_rng(seed)
    x, weight = random.normal(size=(30, channels)), random.normal(size=(channels, 4))
    pairs = choose_pairs(x.T @ x, weight, np.arange(channels), count)
    assert len(pairs) == min(count, channels // 2)
    assert len(set(pairs.reshape(-1).tolist())) == pairs.size, "no channel twice"
    error = ((merged(x, weight, pairs) - x @ weight) ** 2).sum() / ((x @ weight) ** 2).sum()
    assert merging_error(x.T @ x, weight, pairs) == pytest.approx(error, abs=1e-9)


def test_the_cheapest_pair_comes_first() -> None:
    random = np.random.default_rng(4)
    x, weight = random.normal(size=(50, 10)), random.normal(size=(10, 6))
    x[:, 3] = x[:, 8] + 1e-3 * random.normal(size=50)
    assert choose_pairs(x.T @ x, weight, np.arange(10), 1).tolist() in ([[8, 3]], [[3, 8]])


def alike(channels: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and a weight [channels, 20]: each odd channel is nearly the even one before it."""
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(200, channels)), random.normal(size=(channels, 20))
    x[:, 1::2] = x[:, ::2] + 1e-2 * random.normal(size=(200, channels // 2))
    x[:, 5] = 20 * random.normal(size=200)
    return x, weight


def test_after_a_disassembly_the_product_is_as_wide_as_before() -> None:
    x, weight = alike()
    model = model_of("g (double[N,48] x) => (double[N,20] y) { n = Identity(x) y = MatMul(n, w) }", w=weight)
    extremes = ChannelExtremes(x.min(axis=0), x.max(axis=0))
    wide = apply_pass(
        model, DisassembleChannels(), Statistics({"n": TensorStatistics(200, channel=extremes)})
    )
    (name,) = [str(node.inputs[0].name) for node in wide.model.graph if node.op_type == "MatMul"]
    tokens = outputs_of(tapped(wide.model, name), {"x": x})[name]
    assert tokens.shape[1] == 64
    known = Statistics({name: TensorStatistics(200, moments=SecondMoments.of(tokens))})
    result = apply_pass(wide.model, AssembleChannels(tolerance=1e-2), known)
    check(result.model)
    assert result.settled
    assert ops_of(result.model).count("Gather") == 3, "the copies, and the halves of the pairs"
    (product,) = [node for node in result.model.graph if node.op_type == "MatMul"]
    assert product.inputs[1].shape == (48, 20)
    old, new = outputs_of(model, {"x": x})["y"], outputs_of(result.model, {"x": x})["y"]
    assert 0 < ((new - old) ** 2).sum() / (old**2).sum() < 1e-2
    assert not apply_pass(result.model, AssembleChannels(merge=3), known).changes


def tapped(model, name):
    """A copy of the model that gives the value `name` too."""
    copy = model.clone()
    value = next(out for node in copy.graph for out in node.outputs if out.name == name)
    copy.graph.outputs.append(value)
    return copy


def test_a_merge_that_costs_too_much_is_refused_in_words() -> None:
    x, weight = alike()
    x[:, 1::2] = np.random.default_rng(1).normal(size=(200, 24))
    model = model_of("g (double[N,48] x) => (double[N,20] y) { n = Identity(x) y = MatMul(n, w) }", w=weight)
    known = Statistics({"n": TensorStatistics(200, moments=SecondMoments.of(x))})
    held = apply_pass(model, AssembleChannels(merge=10), known)
    assert not held.modified
    assert "merging 10 pairs would change" in held.rejects[0].reason

"""Passes over decoders with a cache: the same function for every mask, past and batch."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.ir.walk import nodes
from onnxq.passes import registry
from onnxq.passes.clean import cleaning
from onnxq.passes.layout import respelling
from onnxq.pipeline import run
from onnxq.runtime import SessionSettings, open_session, optimized_graph
from tests.ir.cached import LAYERS, SPELLINGS, feeds, load

CALLS = ((1, 9, 0), (1, 1, 9), (3, 1, 12), (3, 4, 12), (2, 5, 0))
"""Samples, new tokens and past tokens."""
NAMES = ("stack-heads", "fuse-rotary", "respell-rms-norm")

exported = pytest.mark.parametrize("spelling", SPELLINGS)


def rewritten(spelling, *names):
    passes = [registry()[name]() for name in names]
    return run(load(spelling), [*cleaning(), *passes], verify="never")


def largest_difference(before, after, call, padded):
    inputs = feeds(7, *call, padded=padded)
    settings = SessionSettings(level="disabled")
    one, other = (open_session(model, settings).run(inputs) for model in (before, after))
    assert list(one) == list(other)
    return max(float(np.abs(one[name] - other[name]).max() / np.abs(one[name]).max()) for name in one)


@exported
@pytest.mark.parametrize("name", NAMES)
def test_each_computes_the_same_for_every_mask_past_and_batch(spelling, name):
    result = rewritten(spelling, name)
    assert result.results[-1].modified, result.results[-1].rejects
    before = load(spelling)
    for call in CALLS:
        for padded in (False, True):
            assert largest_difference(before, result.model, call, padded) < 2e-5


@exported
def test_together_nothing_is_repeated_and_the_interface_is_the_same(spelling):
    before = load(spelling)
    after = run(before, [*cleaning(), *respelling("kernels")], verify="never").model
    kinds = [node.op_type for node in nodes(after)]
    assert kinds.count("RotaryEmbedding") == 2 * LAYERS
    assert kinds.count("Cos") == kinds.count("Sin") == 1
    for old, new in zip(
        (*before.graph.inputs, *before.graph.outputs),
        (*after.graph.inputs, *after.graph.outputs),
        strict=True,
    ):
        assert (old.name, old.dtype, str(old.shape)) == (new.name, new.dtype, str(new.shape))
    assert largest_difference(before, after, (3, 4, 12), True) < 2e-5


@exported
def test_onnxruntime_fuses_norms_swaps_and_factors(spelling):
    after = run(load(spelling), [*cleaning(), *respelling("kernels")], verify="never").model
    kinds = [node.op_type for node in nodes(optimized_graph(after))]
    assert kinds.count("SimplifiedLayerNormalization") == 2 * LAYERS + 1
    # TorchScript's shapes do not tell how many heads the queries have: no operator, and keys stay repeated.
    cores = {
        "cached_dynamo": ("Attention", "FusedMatMul"),
        "cached_torchscript": ("FusedMatMul", "Attention"),
    }
    assert [kinds.count(kind) for kind in cores[spelling]] == [LAYERS, 0]
    given = [node.op_type for node in nodes(load(spelling))]
    repeats = {"cached_dynamo": 2 * LAYERS, "cached_torchscript": LAYERS}[spelling]
    assert kinds.count("Expand") == given.count("Expand") - repeats
    assert "SkipSimplifiedLayerNormalization" not in kinds

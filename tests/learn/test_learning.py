"""What is learned is better on samples that were not learned from, or is not used; seeds decide the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxq.edit import Edit
from onnxq.errors import CalibrationError
from onnxq.ir.residual import find_residual, find_streams
from onnxq.learn.batches import batches_of
from onnxq.learn.blocks import find_blocks, join_blocks
from onnxq.learn.imitation import linears_of, reads_of, steps_for, stored, weights_of
from onnxq.learn.low_rank import LowRankSettings, learn_low_rank
from onnxq.learn.program import Changes, Program
from onnxq.learn.reconstruct import ReconstructSettings, learn_rounding
from onnxq.learn.steps import StepSettings, learn_steps
from onnxq.passes.layout.sum_before_norm import SumBeforeNorm
from onnxq.pipeline import apply_pass
from tests.graphs import model_of
from tests.learn.models import TRANSFORMERS, feeds_for, seen_ranges, transformer

STEPS = StepSettings(bits=5, epochs=4, rate=0.05, batch=8)
LOW_RANK = LowRankSettings(weight_bits=3, rank=2, epochs=6, rate=0.02, blocks=2)
BLOCKS = ReconstructSettings(weight_bits=3, bits=6, steps=40, rate=0.05)


@pytest.fixture(scope="module", params=["post_18", "decoder_18"])
def setting(request):
    model = transformer(request.param)
    samples, held_out = feeds_for(model, 1, samples=24), feeds_for(model, 2, samples=8)
    return model, seen_ranges(model, samples), [samples], [held_out]


def error_of(model, feeds, changes: Changes) -> float:
    program = Program(model)
    wanted, got = program(feeds), program(feeds, changes)
    return float(sum((got[name] - wanted[name]).square().sum() for name in wanted))


def test_steps_are_learned(setting):
    model, ranges, samples, held_out = setting
    wide = {name: (3 * low, 3 * high) for name, (low, high) in ranges.items()}
    found = learn_steps(model, wide, samples, held_out, STEPS)
    assert found.kept
    assert found.after < 0.8 * found.before
    assert set(found.ranges) == set(wide)

    def deployed(chosen):
        linears = linears_of(model, chosen)
        return error_of(model, samples[0], Changes(reads=reads_of(linears, steps_for(linears, chosen, 5))))

    assert deployed(found.ranges) < deployed(wide)


def test_steps_that_do_not_help_are_not_used(setting):
    model, ranges, samples, held_out = setting
    found = learn_steps(model, ranges, samples, held_out, StepSettings(bits=8, epochs=1, rate=3.0))
    assert not found.kept
    assert found.ranges == ranges
    assert found.after == found.before


def test_low_rank_corrections_are_learned_and_kept_where_they_help(setting):
    model, ranges, samples, held_out = setting
    found = learn_low_rank(model, ranges, samples, held_out, LOW_RANK)
    assert any(block.kept for block in found.blocks)
    for block in found.blocks:
        assert (block.after < block.before) == block.kept
    linears = linears_of(model, ranges)
    for label, weight in found.weights.items():
        change = weight - linears[label].weight
        assert 0 < np.linalg.matrix_rank(change, tol=1e-5) <= LOW_RANK.rank
    plain = weights_of(linears, {}, 3)
    whole = reads_of(linears, steps_for(linears, ranges, 8))
    rounded = weights_of_corrected(linears, found.weights)
    assert error_of(model, samples[0], Changes(reads={**whole, **rounded})) < error_of(
        model, samples[0], Changes(reads={**whole, **plain})
    )


def weights_of_corrected(linears, weights):
    from onnxq.learn.fake_quant import round_weight, weight_scale

    given = {}
    for label, linear in linears.items():
        weight = torch.from_numpy(np.array(weights.get(label, linear.weight)))
        given[label] = round_weight(weight, weight_scale(weight, 3), 3).numpy()
    return weights_of(linears, given, 0)


def test_rounding_is_reconstructed_and_kept_where_it_helps(setting):
    model, ranges, samples, held_out = setting
    found = learn_rounding(model, ranges, samples, held_out, BLOCKS)
    assert any(block.kept for block in found.blocks)
    linears = linears_of(model, ranges)
    for label, codes in found.codes.items():
        weight = linears[label].weight
        assert codes.codes.dtype == np.int8
        assert np.abs(codes.codes).max() <= 3
        assert np.abs(codes.codes * codes.scale - weight).max() <= codes.scale.max() * 1.001  # up or down


def test_the_same_seed_gives_the_same_bytes(setting):
    model, ranges, samples, held_out = setting
    quick = ReconstructSettings(weight_bits=3, steps=5, rate=0.05)
    first, second = (learn_rounding(model, ranges, samples, held_out, quick) for _ in range(2))
    assert first.blocks == second.blocks
    assert first.ranges == second.ranges
    steps = [learn_steps(model, ranges, samples, held_out, STEPS).ranges for _ in range(2)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_blocks_follow_one_another_and_hold_every_linear_between_the_ends(name):
    model = transformer(name)
    ranges = seen_ranges(model, feeds_for(model, 0))
    linears = linears_of(model, ranges)
    blocks = find_blocks(model, linears)
    assert len(blocks) == 2
    labels = [label for block in blocks for label in block.linears]
    assert len(labels) == len(set(labels)) >= len(linears) - 2  # a head, keys and values of another stream
    if not name.startswith("crossed"):
        assert blocks[0].end == blocks[1].start
        assert [(each.start, each.end) for each in join_blocks(blocks, 4)] == [
            (blocks[0].start, blocks[1].end)
        ]


def test_blocks_are_found_where_the_stream_is_scaled_on_its_way():
    model = transformer("post_18")
    linears = linears_of(model, seen_ranges(model, feeds_for(model, 0)))
    plain = find_blocks(model, linears)
    edit = Edit(model, "test")
    for residual in [found for node in list(model.graph) if (found := find_residual(node)) is not None]:
        factor = edit.constant(np.full(16, 2, np.float32), "factor", near=residual.node)
        (scaled,) = edit.insert("Mul", [residual.skip, factor], before=residual.node, names=["scaled"])
        edit.rewire(residual.node, residual.skip_index, scaled)
    assert find_streams(model) == []
    assert find_blocks(model, linears) == plain


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_blocks_are_the_same_behind_the_pass_that_makes_sums_of_additions(name):
    """Learning works on the model as it is laid out for the runtime."""
    model = transformer(name)
    linears = linears_of(model, seen_ranges(model, feeds_for(model, 0)))
    laid_out = apply_pass(model, SumBeforeNorm()).model
    ends = [(block.end, block.linears) for block in find_blocks(model, linears)]
    found = find_blocks(laid_out, linears_of(laid_out, seen_ranges(laid_out, feeds_for(laid_out, 0))))
    assert [(block.end, block.linears) for block in found] == ends


def test_a_weight_is_put_where_a_gemm_reads_it():
    model = model_of(
        "g (float[2,3] x) => (float[2,4] y) <float[4,3] w> { y = Gemm<transB=1, alpha=0.5>(x, w) }",
        w=np.arange(12, dtype=np.float32).reshape(4, 3),
    )
    (linear,) = linears_of(model, {"x"}).values()
    read = stored(linear, torch.from_numpy(np.array(linear.weight)))
    np.testing.assert_array_equal(read, np.arange(12).reshape(4, 3))


def test_batches_are_of_like_length_and_end_with_their_longest_sample():
    model = model_of(
        "g (int64[B,S] ids, int64[B,S] attention_mask) => (int64[B,S] y) { y = Mul(ids, attention_mask) }"
    )
    used = np.random.default_rng(0).integers(1, 8, 9)
    mask = (np.arange(10) < used[:, None]).astype(np.int64)
    batches = batches_of(model, [{"ids": mask * 5, "attention_mask": mask}], 4)
    assert sum(len(batch.mask) for batch in batches) == 9
    assert sum(int(batch.mask.sum()) for batch in batches) == used.sum()
    lengths = [batch.mask.shape[1] for batch in batches]
    assert lengths == sorted(lengths)
    assert all(bool(batch.mask[:, -1].any()) for batch in batches)


def test_nothing_to_learn_from_is_an_error():
    model = transformer("post_18")
    with pytest.raises(CalibrationError):
        learn_steps(model, {}, [], [])

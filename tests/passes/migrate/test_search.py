"""Thresholds found by trial: on what is really computed behind a tensor, attention and gates included."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.contract import Context
from onnxq.ir.channels import live_channels
from onnxq.passes.migrate.attention_objective import AttentionTerm, find_part
from onnxq.passes.migrate.migration import Migration, plan_migration
from onnxq.passes.migrate.objectives import GatedTerm, LinearTerm
from onnxq.passes.migrate.rounding_trial import TrialBits, round_activation, round_weight
from onnxq.passes.migrate.search import Range, search_scale, terms_behind
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.quantize.ranges import params_for
from onnxq.passes.quantize.weights import quantize_weight
from onnxq.pipeline import apply_pass
from onnxq.statistics import ChannelExtremes, Examples, Rows, Statistic, Statistics, TensorStatistics
from onnxq.verify import Verdict
from tests.passes.migrate.families import family, judged, norms_of

EXACT = TrialBits(weight=16, activation=16, margin=0.0)


def observed(model, seed: int = 0, samples: int = 2) -> Statistics:
    """What ShiftScale wants to know, of random data, as calibration would gather it."""
    from onnxq.runtime import feeds_for, open_session
    from onnxq.runtime.settings import SessionSettings

    wanted = ShiftScale(search="output").wanted(model)
    names = {str(value.name) for values in wanted.values() for value in values}
    taps = tuple(sorted(name for name in names if name not in {value.name for value in model.graph.inputs}))
    session = open_session(model, SessionSettings(taps=taps, level="disabled"))
    runs = []
    for number in range(samples):
        feeds = feeds_for(session.inputs, seed=seed + number)
        runs.append({**feeds, **session.run(feeds)})
    found = {}
    for name in names:
        arrays = [np.asarray(run[name]) for run in runs]
        examples = Examples.of(arrays)
        if arrays[0].dtype.kind != "f" or name not in {str(v.name) for v in wanted[Statistic.ROWS]}:
            found[name] = TensorStatistics(0, examples=examples)
            continue
        tokens = np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays])
        found[name] = TensorStatistics(
            len(tokens), channel=ChannelExtremes.of(tokens), rows=Rows.of(tokens), examples=examples
        )
    return Statistics(found)


def plans_of(model) -> list[Migration]:
    plans = [plan_migration(norm) for norm in norms_of(model)]
    return [plan for plan in plans if isinstance(plan, Migration)]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_trial_rounds_as_the_quantizing_pass_will(bits):
    random = np.random.default_rng(bits)
    x, weight = (
        random.normal(size=(50, 12)).astype(np.float32),
        random.normal(size=(12, 7)).astype(np.float32),
    )
    grid = params_for(-2.0, 3.0, bits)
    np.testing.assert_allclose(round_activation(x, -2.0, 3.0, bits), grid.apply(x), atol=1e-6)
    np.testing.assert_allclose(round_weight(weight, bits), quantize_weight(weight, bits).values, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "opset", "dynamo"), [("post", 14, False), ("pre", 18, True), ("decoder", 18, True)]
)
def test_an_attention_is_cut_out_and_computes_what_the_model_does(name, opset, dynamo):
    model = family(name, opset, dynamo)
    context = Context(model, observed(model))
    found = 0
    for plan in plans_of(model):
        part = find_part(plan.linears)
        if part is None:
            continue
        found += 1
        label = str(plan.norm.output.name)
        term = AttentionTerm(part, label, context)
        channels = context.statistics[label].channel
        live = np.ones(plan.norm.channels, bool)
        one = np.ones(plan.norm.channels)
        fine = Range(channels.low, channels.high, live).moved(one, 0 * one, EXACT)
        coarse = Range(channels.low, channels.high, live).moved(one, 0 * one, TrialBits(3, 3, 0.0))
        assert term.energy > 0
        assert term.error(fine) < 1e-5
        assert term.error(coarse) > 100 * term.error(fine)
    assert found == 2


def test_scale_and_shift_in_a_trial_change_nothing_but_the_rounding():
    model = family("post", 18, True)
    context = Context(model, observed(model))
    random = np.random.default_rng(0)
    for plan in plans_of(model):
        label, count = str(plan.norm.output.name), plan.norm.channels
        channels = context.statistics[label].channel
        moved = Range(channels.low, channels.high, np.ones(count, bool)).moved(
            random.uniform(1, 4, count), random.normal(size=count), EXACT
        )
        for term in terms_behind(plan.linears, label, context, "output")[0]:
            assert term.error(moved) < 1e-5


def test_a_gate_is_judged_by_the_product():
    model = family("decoder", 18, True)
    context = Context(model, observed(model))
    kinds = [
        [type(term) for term in terms_behind(plan.linears, str(plan.norm.output.name), context, "output")[0]]
        for plan in plans_of(model)
    ]
    assert kinds.count([AttentionTerm]) == 2
    assert kinds.count([GatedTerm]) == 2
    alone, _ = terms_behind(
        plans_of(model)[0].linears, str(plans_of(model)[0].norm.output.name), context, "linear"
    )
    assert [type(term) for term in alone] == [LinearTerm]


def test_without_examples_the_linears_decide():
    model = family("post", 18, True)
    statistics = observed(model)
    bare = Statistics(
        {
            name: TensorStatistics(each.count, channel=each.channel, rows=each.rows)
            for name, each in statistics.items()
        }
    )
    plan = plans_of(model)[0]
    terms, remark = terms_behind(plan.linears, str(plan.norm.output.name), Context(model, bare), "output")
    assert [type(term) for term in terms] == [LinearTerm]
    assert "no examples" in remark
    with pytest.raises(LookupError, match="rows"):
        terms_behind(plan.linears, str(plan.norm.output.name), Context(model), "output")


@pytest.mark.parametrize("search", ["linear", "output"])
@pytest.mark.parametrize(
    ("name", "opset", "dynamo"), [("post", 14, False), ("decoder", 18, True), ("crossed", 18, True)]
)
def test_what_is_found_keeps_the_function(name, opset, dynamo, search):
    before = family(name, opset, dynamo)
    result = apply_pass(before, ShiftScale(search=search, activation_bits=6), observed(before))
    assert result.modified
    assert judged(before, result.model).verdict is Verdict.EQUAL


def test_the_threshold_that_errs_least_wins_and_a_tie_moves_nothing():
    reach = np.array([1.0, 2.0, 32.0, 5.0])
    live = np.array([True, True, True, False])

    def error_of(scale):
        return abs(np.log(scale.max()) - np.log(4.0)) + 0.1

    scale, error = search_scale(reach, live, error_of)
    assert scale[2] == pytest.approx(4.0, rel=0.1)
    assert error == error_of(scale)
    assert scale[3] == 1.0, "nobody reads it"
    np.testing.assert_array_equal(search_scale(reach, live, lambda scale: 1.0)[0], np.ones(4))


def test_dead_channels_set_no_range_and_are_not_scaled():
    random = np.random.default_rng(0)
    weight = random.normal(size=(6, 5))
    weight[2] = 0
    live = live_channels([weight, weight * 2])
    assert live.tolist() == [True, True, False, True, True, True]
    low, high = -np.ones(6), np.ones(6)
    high[2] = 1000.0
    trial = Range(low, high, live).moved(np.ones(6), np.zeros(6), EXACT)
    assert (trial.low, trial.high) == (-1.0, 1.0)

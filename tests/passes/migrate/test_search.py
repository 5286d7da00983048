"""Thresholds found by trial: on what is really computed behind a tensor, attention and gates included."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import Context
from onnxq.ir.channels import live_channels
from onnxq.passes.migrate.attention_objective import AttentionTerm, find_parts
from onnxq.passes.migrate.migration import Migration, plan_migration
from onnxq.passes.migrate.objectives import GatedTerm, LinearTerm, Trial
from onnxq.passes.migrate.rounding_trial import TrialBits, round_activation, round_weight
from onnxq.passes.migrate.search import Range, search_scale, terms_behind
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.quantize.ranges import params_for
from onnxq.passes.quantize.weights import quantize_weight
from onnxq.pipeline import apply_pass
from onnxq.statistics import ChannelExtremes, Examples, Rows, Statistic, Statistics, TensorStatistics
from onnxq.verify import Verdict
from tests.families.build import build
from tests.families.spec import Dims, Spec
from tests.graphs import model_of
from tests.passes.migrate.families import family, judged, norms_of

EXACT = TrialBits(weight=16, activation=16, margin=0.0)
COARSE = TrialBits(weight=3, activation=3, margin=0.0)


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
        for part in find_parts(plan.linears):
            found += 1
            term = AttentionTerm(part, str(plan.norm.output.name), context)
            assert term.energy > 0
            assert term.error(unmoved(plan, context, EXACT)) < 1e-5
            assert term.error(unmoved(plan, context, COARSE)) > 100 * term.error(
                unmoved(plan, context, EXACT)
            )
    assert found == 2


def unmoved(plan: Migration, context: Context, bits: TrialBits) -> Trial:
    """The trial of a norm's output as it is."""
    seen, one = context.statistics[str(plan.norm.output.name)].channel, np.ones(plan.norm.channels)
    return Range(seen.low, seen.high, one > 0).moved(one, 0 * one, bits)


def crossed(attention: str, family: str = "post-crossed", dtype: str = "float32") -> ir.Model:
    """An encoder whose last norm feeds the keys and values of three layers of a decoder."""
    spec = Spec(family, attention=attention, dtype=dtype, sizes="fixed", dims=Dims(layers=3))
    return build(spec)


def memory_of(model: ir.Model) -> Migration:
    """The norm that several attentions read."""
    (plan,) = [plan for plan in plans_of(model) if len(find_parts(plan.linears)) > 1]
    return plan


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", ["post-crossed", "pre-crossed"])
@pytest.mark.parametrize("attention", ["script", "packed", "guarded"])
def test_every_attention_behind_a_norm_is_judged(attention, family, dtype):
    model = crossed(attention, family, dtype)
    context = Context(model, observed(model))
    plan = memory_of(model)
    terms, remark = terms_behind(plan.linears, str(plan.norm.output.name), context, "output")
    assert remark == ""
    assert [type(term) for term in terms] == [AttentionTerm] * 3
    assert {linear for term in terms for linear in term.part.linears} == {*plan.linears}
    fine, coarse = ([term.error(unmoved(plan, context, bits)) for term in terms] for bits in (EXACT, COARSE))
    assert max(fine) < 1e-5
    assert min(coarse) > 1e-4
    assert len({*coarse}) == 3


MASKED = """g (float[5,16] x, float[5,16] z) => (float[5,16] y) {
    n = LayerNormalization(x, gamma) q = MatMul(STREAM, w) k = MatMul(n, u) v = MatMul(n, o)
    t = Transpose<perm = [1, 0]>(k) s = MatMul(q, t) m = Add(s, mask) p = Softmax<axis = -1>(m)
    y = MatMul(p, v)
}"""
"""One attention to five tokens, of which the last two are masked."""


@pytest.mark.parametrize(("stream", "counted"), [("n", 3), ("z", 5)], ids=["to itself", "to another"])
def test_queries_count_whatever_keys_are_masked(stream, counted):
    """A masked token of the same stream is no data; one of another stream says nothing of the queries."""
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(16, 16)).astype(np.float32) for name in "wuo"}
    arrays |= {"gamma": np.ones(16, np.float32), "mask": np.array([0, 0, 0, -1e9, -1e9], np.float32)}
    model = model_of(MASKED.replace("STREAM", stream), **arrays)
    (plan,) = plans_of(model)
    (part,) = find_parts(plan.linears)
    term = AttentionTerm(part, "n", Context(model, observed(model)))
    assert [counts.sum() for counts in term.counts] == [counted] * 2


@pytest.mark.parametrize("family", ["post-crossed", "pre-crossed"])
def test_what_many_attentions_agree_on_keeps_the_function(family):
    before = crossed("script", family)
    wanted = {str(value.name) for value in ShiftScale(search="output").wanted(before)[Statistic.EXAMPLES]}
    crossing = {str(value.name) for part in find_parts(memory_of(before).linears) for value in part.crossing}
    assert len(crossing) == 4, "queries of three layers, and the mask"
    assert crossing <= wanted
    result = apply_pass(before, ShiftScale(search="output", activation_bits=6), observed(before))
    assert result.modified
    assert judged(before, result.model).verdict is Verdict.EQUAL


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


GATES = {
    "apart": "g = Gemm(n, w, b) p = Gemm(n, v, d)",
    "gate first": "f = Gemm(n, wv, bd) g, p = Split<axis = -1>(f, sizes)",
    "factor first": "f = Gemm(n, vw, db) p, g = Split<axis = -1>(f, sizes)",
    "sliced": "f = Gemm(n, wv, bd) p = Slice(f, half, far, last) g = Slice(f, zero, half, last)",
}


PACKED = ("wv", "vw", "bd", "db")
"""Weights and biases of two linears side by side."""


@pytest.mark.parametrize("precision", ["float", "float16"])
def test_a_gate_in_one_linear_is_judged_as_two_would_be(precision):
    """Weights are rounded column by column, so it makes no difference where columns are."""
    found = {}
    for name, body in GATES.items():
        model = gate_of(body, precision)
        (plan,) = plans_of(model)
        context = Context(model, observed(model))
        terms, _ = terms_behind(plan.linears, "n", context, "output")
        assert [type(term) for term in terms] == [GatedTerm], name
        found[name] = [terms[0].error(unmoved(plan, context, bits)) for bits in (COARSE, EXACT)]
    assert found["apart"][0] > 100 * found["apart"][1]
    for errors in found.values():
        np.testing.assert_allclose(errors, found["apart"], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("body", GATES.values(), ids=GATES)
def test_a_norm_before_a_gate_keeps_the_function(body):
    before = gate_of(body, "float")
    result = apply_pass(before, ShiftScale(search="output", activation_bits=6), observed(before))
    assert result.modified
    assert judged(before, result.model).verdict is Verdict.EQUAL


def test_columns_beside_a_gate_are_judged_too():
    body = "f = Gemm(n, wide, more) g, p, k = Split<axis = -1>(f, three) o = Tanh(k)"
    model = gate_of(body, "float", outputs=", float[4,16] o")
    (plan,) = plans_of(model)
    terms, _ = terms_behind(plan.linears, "n", Context(model, observed(model)), "output")
    assert [type(term) for term in terms] == [GatedTerm, LinearTerm]


def gate_of(body: str, precision: str, outputs: str = "") -> ir.Model:
    """``silu(g) * p`` behind a norm, from the same numbers wherever they stand."""
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(16, 16)) for name in "wv"}
    arrays |= {name: random.normal(size=16) for name in "bd"}
    arrays |= {"gamma": random.uniform(0.2, 4.0, 16), "far": np.array([99])}
    arrays |= {name: np.concatenate([arrays[each] for each in name], axis=-1) for name in PACKED}
    arrays |= {"wide": random.normal(size=(16, 48)), "more": random.normal(size=48)}
    numbers = {"sizes": [16, 16], "three": [16] * 3, "zero": [0], "half": [16], "last": [-1]}
    arrays |= {name: np.array(array) for name, array in numbers.items()}
    whole = f"n = LayerNormalization(x, gamma) {body} s = Sigmoid(g) a = Mul(g, s) y = Mul(a, p)"
    dtype = np.float16 if precision == "float16" else np.float32
    used = {
        name: array.astype(dtype) if array.dtype == np.float64 else array
        for name, array in arrays.items()
        if f" {name})" in whole or f" {name}," in whole
    }
    return model_of(f"g ({precision}[4,16] x) => ({precision}[4,16] y{outputs}) {{ {whole} }}", **used)


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

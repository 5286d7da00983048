"""Methods on a small model: states computed once, rows measured once, every recipe one that can be run."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks import states
from benchmarks.ledger import Ledger, describe
from benchmarks.methods import JUDGED
from benchmarks.planned import Planned
from benchmarks.recipes import ABLATIONS, BITS, EVENED, ROWS, Recipe, linears, ours
from benchmarks.states import Workshop, quantize
from onnxq.api.ranges import UNTRIED
from onnxq.calibration import DataOptions, open_data
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.runtime import SessionSettings, open_session
from onnxq.statistics import Statistic
from tests.graphs import model_of

CHANNELS = 64
W8A8 = BITS["W8A8"]


@pytest.fixture(scope="module")
def model() -> ir.Model:
    """Norm, two linears with a ReLU between; channels of the norm and of the ReLU stand out."""
    generator = np.random.default_rng(0)
    gamma = np.where(np.arange(CHANNELS) % 17 == 3, 12.0, 1.0).astype(np.float32)
    up = generator.normal(size=(CHANNELS, 96)).astype(np.float32) / 8
    up[:, 5] *= 20
    down = generator.normal(size=(96, CHANNELS)).astype(np.float32) / 8
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    small (float[N,T,{CHANNELS}] x) => (float[N,T,{CHANNELS}] y) {{
        normed = LayerNormalization <axis = -1> (x, gamma, beta)
        wide = MatMul(normed, up)
        hidden = Relu(wide)
        y = MatMul(hidden, down)
    }}"""
    parsed = ir.from_onnx_text(text)
    values = {"gamma": gamma, "beta": np.zeros(CHANNELS, np.float32), "up": up, "down": down}
    for node in parsed.graph:
        node.name = str(node.outputs[0].name)
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in values:
                known = ir.Value(name=value.name, const_value=ir.tensor(values[value.name], name=value.name))
                parsed.graph.initializers.setdefault(value.name, known)
                node.replace_input_with(index, parsed.graph.initializers[value.name])
    return parsed


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(8, 12, CHANNELS)).astype(np.float32)


def workshop_for(model, tokens, recipes, room=12):
    source = open_data({"x": tokens}, model, DataOptions(batch_size=2))
    return Workshop(model, source, room, recipes)


def error_of(model, made, tokens):
    answers = [open_session(each, SessionSettings()).run({"x": tokens})["y"] for each in (model, made)]
    return float(np.square(answers[0] - answers[1]).sum() / np.square(answers[0]).sum())


@pytest.mark.parametrize("name", [*ROWS, *ABLATIONS])
@pytest.mark.parametrize("bits", ["W8A8", "W4A4"])
def test_every_recipe_rounds_both_products(model, tokens, name, bits):
    recipe = {**ROWS, **ABLATIONS}[name][1](BITS[bits])
    if recipe is None:
        pytest.skip("not at these bits")
    if recipe.learned is not None:
        pytest.importorskip("torch")
    made = quantize(workshop_for(model, tokens, [recipe]), recipe)
    assert made.products >= 2
    assert not [note for note in made.notes if "undone" in note]
    assert 0 < error_of(model, made.model, tokens) < (0.05 if bits == "W8A8" else 1.0)


def test_fewer_bits_lose_more(model, tokens):
    recipes = [Recipe(linears(bits)) for bits in BITS.values()]
    workshop = workshop_for(model, tokens, recipes)
    errors = [error_of(model, quantize(workshop, each).model, tokens) for each in recipes]
    assert errors == sorted(errors)


def test_a_state_is_built_and_observed_once(model, tokens, monkeypatch):
    collected = []

    def collect(given, *others, **more):
        collected.append(given)
        return states.collect_once(given, *others, **more)

    monkeypatch.setattr(states, "collect_once", states.collect, raising=False)
    monkeypatch.setattr(states, "collect", collect)
    steps = (ShiftScale(),)
    recipes = [Recipe(linears(bits, rounding="feedback"), steps) for bits in BITS.values()]
    recipes.append(Recipe(linears(W8A8, method="percentile"), steps))
    workshop = workshop_for(model, tokens, recipes)
    for recipe in recipes:
        quantize(workshop, recipe)
    assert len(collected) == 2  # for the migration, and for all the roundings together


def test_what_options_do_is_measured_once_for_all_ablations_of_the_plan(model, tokens, monkeypatch):
    planned, heard = [], []
    plan, weigh = Planned.plan, Planned.weighed
    monkeypatch.setattr(Planned, "plan", lambda *given: planned.append(1) or plan(*given))
    monkeypatch.setattr(Planned, "weighed", lambda *given: heard.append(1) or weigh(*given))
    recipes = [ours(W8A8), *(ours(W8A8, each) for each in ("split", "per-token", "effects", "feedback"))]
    workshop = workshop_for(model, tokens, recipes)
    for each in recipes:
        quantize(workshop, each)
    assert (len(planned), len(heard)) == (1, 1)


@pytest.mark.parametrize(("bits", "form"), [("W8A8", "int8 static"), ("W4A8", "int4 blocks")])
def test_without_blocks_a_head_has_none_either_that_shares_its_table(tokens, bits, form):
    """Where there are any, it is offered little else."""
    table = np.random.default_rng(2).normal(size=(256, CHANNELS)).astype(np.float32)
    body = "e = Gather(w, ids) s = Add(e, x) t = Transpose<perm = [1, 0]>(w) y = MatMul(s, t)"
    inputs = f"int64[N,T] ids, float[N,T,{CHANNELS}] x"
    model = model_of(f"g ({inputs}) => (float[N,T,256] y) {{ {body} }}", w=table)
    source = open_data({"ids": np.arange(96).reshape(8, 12), "x": tokens}, model)
    step = Planned(BITS[bits], without="int8 blocks", effects=False)
    plan = Workshop(model, source, 12, []).prepared((step,)).plan
    assert form in [each.option for each in plan.layers[0].considered]
    assert plan.layers[0].form != "int8 blocks"


def test_states_make_room(model, tokens):
    recipes = [Recipe(linears(W8A8), (each,)) for each in (ShiftScale(shift=False), ShiftScale(scale=False))]
    workshop = workshop_for(model, tokens, recipes, room=1)
    first, _, again = (workshop.final(each) for each in (*recipes, recipes[0]))
    assert first is not again
    assert workshop.final(recipes[0]) is again


def test_planner_tries_at_the_bits_asked_for(model, tokens):
    first = workshop_for(model, tokens, []).prepared(())
    kinds = (Statistic.CHANNEL_EXTREMES, Statistic.ROWS)
    statistics = first.gather(first.model, dict.fromkeys(kinds, ("normed", "hidden")))
    plans = [Planned(BITS[name]).plan(first.model, statistics) for name in ("W8A8", "W6A6", "W4A4")]
    plain = [plan.layers[0].considered[0].sqnr_db for plan in plans]
    assert plain == sorted(plain, reverse=True)
    assert {layer.form for plan in plans for layer in plan.layers} <= {"int8 static", "int8 per-token"}


def test_plans_have_no_mul_that_optimize_would_not_insert(model, tokens):
    first = workshop_for(model, tokens, []).prepared(())
    kinds = (Statistic.CHANNEL_EXTREMES, Statistic.ROWS)
    statistics = first.gather(first.model, dict.fromkeys(kinds, ("normed", "hidden")))
    tried = [
        each.option
        for candidates in Planned(W8A8).plan(first.model, statistics).candidates.values()
        for each in candidates.measured
    ]
    assert any(option.form == "int8 static" for option in tried)
    assert not any(option.scaled for option in tried if option.form == "int8 static")


def test_ours_follows_what_optimize_emits():
    (_, scale, plan), made = ours(W8A8).exact, ours(W8A8).rounding
    assert (scale.insert_nodes, plan.without) == (False, "")
    assert (made.rounding, made.correct_bias, made.margin) == ("feedback", True, UNTRIED.margin)
    blocks = ours(BITS["W4A8"])
    assert isinstance(blocks.rounding, QuantizeBlocks)
    assert [type(each) for each in blocks.exact] == [Planned]


def test_ablations_that_would_be_ours_again_are_left_out():
    assert ours(W8A8, "clipping") is None
    assert ours(BITS["W4A4"], "margin") is None
    for bits in BITS.values():
        texts = [describe(made) for name in ABLATIONS if (made := ABLATIONS[name][1](bits)) is not None]
        assert describe(ours(bits)) not in texts
        assert len(set(texts)) == len(texts)


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(tmp_path / "methods-vit.json", "vit", {"data": "one"}, keep=False)


def test_a_row_stands_until_its_passes_or_the_code_change(ledger):
    recipe = Recipe(linears(W8A8))
    assert not ledger.holds("minmax", W8A8, recipe)
    ledger.note("minmax", W8A8, {"call": describe(recipe), "error": 0.5})
    again = Ledger(ledger.path, "vit", {"data": "one"}, keep=False)
    assert again.holds("minmax", W8A8, recipe)
    assert not again.holds("minmax", W8A8, Recipe(linears(W8A8, margin=0.5)))
    again.code = "other"
    assert not again.holds("minmax", W8A8, recipe)
    again.keep = True
    assert again.holds("minmax", W8A8, recipe)


def test_a_row_that_failed_is_tried_again(ledger):
    recipe = Recipe(linears(W8A8))
    ledger.note("minmax", W8A8, {"call": describe(recipe), "failure": "no"})
    assert not ledger.holds("minmax", W8A8, recipe)


def test_other_data_begins_anew(ledger):
    ledger.note("minmax", W8A8, {"call": "", "error": 0.5})
    assert json.loads(ledger.path.read_text())["rows"]
    assert not Ledger(ledger.path, "vit", {"data": "other"}, keep=True).content["rows"]


def test_errors_order_scores():
    assert JUDGED["minilm"].error({"cosine_mean": 0.9}) == pytest.approx(0.1)
    assert JUDGED["vit"].error({"sqnr_db": 20.0}) == pytest.approx(0.01)
    assert JUDGED["vit"].error({}) == 0.0
    assert JUDGED["smollm2"].error({"perplexity_ratio": 1.02}) == pytest.approx(0.02)


@pytest.mark.parametrize("bits", BITS.values(), ids=str)
def test_what_chooses_channels_reckons_with_the_bits_of_the_row(bits):
    recipes = [made for _, make in ROWS.values() if (made := make(bits)) is not None]
    choosers = [
        step
        for recipe in recipes
        for step in recipe.exact
        if hasattr(step, "weight_bits") and step not in EVENED and not getattr(step, "groups", 0)
    ]
    told = {step.name for step in choosers}
    assert {"split-channels", "disassemble-channels", "split-groups", "shift-scale", "insert-scale"} <= told
    bits_told = {(step.weight_bits, step.activation_bits) for step in choosers}
    assert bits_told == {(bits.weights, bits.activations)}

"""Which form a linear takes, on activations made for each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import collect, open_data
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import run
from onnxq.planning.front import Measured, Point
from onnxq.planning.layer_plan import LayerPlan
from onnxq.planning.layers import Plan, plan_layers
from onnxq.planning.options import Option
from onnxq.planning.reasons import evidence
from onnxq.planning.settings import PlanSettings
from onnxq.planning.trial import TrialSettings
from onnxq.runtime import open_session
from onnxq.statistics import Statistic, Statistics
from onnxq.targets import TARGETS
from onnxq.targets.costs import KernelCosts
from tests.graphs import model_of

SETTINGS = PlanSettings(
    TARGETS["x86-vnni"],
    margin=0.0,
    forms=("int8 static", "int8 per-token", "float"),
    tokens=1024,
    exchange=1.0,
    trial=TrialSettings(weight_noise=1.0, rows=1024),
)
"""With the noise of rounding to nearest, which the quantized models of these tests have."""
ALL_FORMS = replace(SETTINGS, forms=("int8 static", "int8 per-token", "int8 blocks", "float"))
WITHOUT_MUL = replace(SETTINGS, insert_nodes=False, exchange=0.3)
CHEAP_SCALES = replace(
    SETTINGS,
    target=replace(SETTINGS.target, costs=KernelCosts(traffic=200_000.0, token_elements=50_000.0)),
    exchange=0.65,
)
"""Of a processor on which scales by token cost little but their calls."""
K, N = 64, 256
Tokens = Callable[[np.random.Generator], np.ndarray]


def even(random: np.random.Generator) -> np.ndarray:
    return random.uniform(-1, 1, size=(24, 8, K))


def towering_tokens(random: np.random.Generator) -> np.ndarray:
    """The first token of each sample is a thousand times the others."""
    tokens = even(random)
    tokens[:, 0] *= 1000
    return tokens


def towering_channels(random: np.random.Generator) -> np.ndarray:
    tokens = even(random)
    tokens[..., [5, 9]] *= 100
    return tokens


def uneven(random: np.random.Generator) -> np.ndarray:
    """No channel stands out; they grow all along."""
    return even(random) * np.geomspace(1, 30, K)


def weight(columns: int = N) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(K, columns)).astype(np.float32)


def linear(**arrays: np.ndarray) -> ir.Model:
    body = "y = MatMul(x, w)"
    made = model_of(f"g (float[B,8,64] x) => (float[B,8,256] y) {{ {body} }}", **({"w": weight()} | arrays))
    next(iter(made.graph)).name = "layer"
    return made


def gathered(model: ir.Model, x: np.ndarray) -> Statistics:
    source = open_data({"x": x.astype(np.float32)}, model)
    names = [str(value.name) for node in model.graph for value in node.inputs if value.producer()] + ["x"]
    wanted = dict.fromkeys((Statistic.CHANNEL_EXTREMES, Statistic.ROWS), names)
    return collect(model, source, wanted, cache=False)


def planned(model: ir.Model, tokens: Tokens, settings: PlanSettings = SETTINGS) -> Plan:
    return plan_layers(model, gathered(model, tokens(np.random.default_rng(0))), settings)


def only(plan: Plan) -> LayerPlan:
    (layer,) = plan.layers
    return layer


def test_each_kind_of_activation_gets_its_form() -> None:
    assert str(only(planned(linear(), even)).option) == "int8 static"
    assert only(planned(linear(), towering_tokens)).form == "int8 per-token"
    assert only(planned(linear(), towering_channels)).option.scaled
    split = only(planned(linear(), towering_channels, WITHOUT_MUL))
    assert set(split.outliers) >= {5, 9}
    assert split.form == "int8 static"


def test_what_the_target_lacks_is_not_chosen() -> None:
    narrow = replace(SETTINGS, forms=("int8 static", "float"), split=False, insert_nodes=False)
    for tokens in (towering_tokens, towering_channels, uneven):
        tried = {each.option for each in only(planned(linear(), tokens, narrow)).considered}
        assert tried == {"int8 static", "float"}
    assert only(planned(linear(), towering_tokens, narrow)).form == "float"


def test_an_activation_of_a_norm_is_not_evened_out_by_a_mul() -> None:
    normed = model_of(
        "g (float[B,8,64] x) => (float[B,8,256] y)"
        " { n = LayerNormalization<axis = -1>(x, gamma) y = MatMul(n, w) }",
        gamma=np.geomspace(1, 30, K).astype(np.float32),
        w=weight(),
    )
    forms = {each.option for each in only(planned(normed, even)).considered}
    assert "int8 static, channels evened out" not in forms
    assert any("evened" in each.option for each in only(planned(linear(), uneven)).considered)


def spiky(random: np.random.Generator) -> np.ndarray:
    """One channel of each token towers over the others, each time another one."""
    tokens = even(random)
    spikes = random.integers(0, K, size=(*tokens.shape[:2], 1))
    np.put_along_axis(tokens, spikes, 60.0, axis=-1)
    return tokens


def test_towers_that_move_about_are_spread_over_their_blocks() -> None:
    layer = only(planned(linear(), spiky, CHEAP_SCALES))
    assert layer.option.rotated
    sqnr = {each.option: each.sqnr_db for each in layer.considered}
    assert sqnr["int8 per-token, channels rotated"] > sqnr["int8 per-token"] + 3


def test_a_norm_is_evened_out_for_a_scale_by_token_at_no_cost() -> None:
    normed = model_of(
        "g (float[B,8,64] x) => (float[B,8,256] y)"
        " { n = LayerNormalization<axis = -1>(x, gamma) y = MatMul(n, w) }",
        gamma=np.geomspace(1, 300, K).astype(np.float32),
        w=weight() / np.geomspace(1, 300, K)[:, None].astype(np.float32),
    )
    plan = planned(normed, even, replace(SETTINGS, forms=("int8 per-token", "float")))
    tried = {each.option: each for each in only(plan).considered}
    plain, evened = (tried[f"int8 per-token{end}"] for end in ("", ", channels evened out"))
    assert evened.cost == plain.cost
    assert evened.sqnr_db > plain.sqnr_db + 6
    assert [each.name for each in plan.exact_passes()][:2] == ["shift-scale", "insert-scale"]


def quantized(model: ir.Model, plan: Plan, statistics: Callable[..., Statistics]) -> ir.Model:
    blocks = plan.names("int8 blocks")
    own = [QuantizeBlocks(only=blocks)] if blocks else []
    skip = (*plan.names("float"), *blocks)
    last = QuantizeLinears(skip=skip, per_token=plan.names("int8 per-token"))
    return run(model, [*plan.exact_passes(), last, *own], gather=statistics, verify="never").model


@pytest.mark.parametrize("tokens", [even, towering_tokens, towering_channels, uneven, spiky])
def test_the_error_foretold_is_the_error_made(tokens: Tokens) -> None:
    """Of every option, against the quantized model itself as the runtime runs it."""
    model, x = linear(), tokens(np.random.default_rng(0)).astype(np.float32)
    source = open_data({"x": x}, model)
    plan = planned(model, tokens, ALL_FORMS)
    exact = (x.astype(np.float64) @ weight()).reshape(-1, N)
    for place in range(len(plan.front)):
        this = plan.at(place, "")
        layer = only(this)
        if layer.form == "float":
            continue
        made = quantized(model, this, lambda state, wanted: collect(state, source, wanted, cache=False))
        noise = open_session(made).run({"x": x})["y"].reshape(-1, N) - exact
        by_token = (noise**2).sum(axis=1) / (exact**2).sum(axis=1)
        found = -10 * np.log10(by_token.mean())
        assert layer.sqnr_db == pytest.approx(found, abs=1.0), str(layer.option)


def test_outliers_as_several_copies_err_as_foretold_and_the_pass_makes_them() -> None:
    model, x = linear(), towering_channels(np.random.default_rng(0)).astype(np.float32) / 10
    source = open_data({"x": x}, model)
    plan = plan_layers(model, gathered(model, x), SETTINGS)
    (name, found) = next(iter(plan.candidates.items()))
    place = next(place for place, each in enumerate(found.measured) if each.option.copied)
    copied, plain = found.measured[place], found.measured[0]
    assert copied.error < plain.error / 10
    assert copied.cost > plain.cost
    layer = found.layer(only(plan), Point(0.0, 0.0, {name: place}))
    made = quantized(model, Plan((layer,)), lambda state, wanted: collect(state, source, wanted, cache=False))
    (product,) = (node for node in made.graph if node.op_type == "MatMulIntegerToFloat")
    assert product.inputs[1].shape[0] == K + copied.option.copied
    exact = (x.astype(np.float64) @ weight()).reshape(-1, N)
    noise = open_session(made).run({"x": x})["y"].reshape(-1, N) - exact
    by_token = (noise**2).sum(axis=1) / (exact**2).sum(axis=1)
    assert layer.sqnr_db == pytest.approx(-10 * np.log10(by_token.mean()), abs=1.0)


def test_a_massive_token_does_not_hide_the_others() -> None:
    """Weighed by energy, the error of the small tokens would not show."""
    static = next(
        each for each in only(planned(linear(), towering_tokens)).considered if each.option == "int8 static"
    )
    assert static.sqnr_db < 8


def test_a_hopeless_form_is_left_whatever_it_costs_to_leave_it() -> None:
    stubborn = replace(SETTINGS, exchange=1e9, forms=("int8 static", "float"), split=False)
    assert only(planned(linear(), towering_tokens, stubborn)).form == "float"
    assert only(planned(linear(), even, stubborn)).form == "int8 static"


def test_seven_bits_and_margins_are_measured_as_such() -> None:
    seven = replace(SETTINGS, target=replace(SETTINGS.target, weight_bits=7))
    wide = replace(SETTINGS, margin=1.0)
    settings = (replace(each, forms=("int8 static", "float")) for each in (SETTINGS, seven, wide))
    plain, *worse = (only(planned(linear(), even, each)).sqnr_db for each in settings)
    assert plain is not None
    assert all(each is not None and each < plain for each in worse)


def test_along_the_front_errors_fall_and_reasons_are_told() -> None:
    plan = planned(linear(), towering_channels)
    first = plan.at(0, "as fast as can be")
    assert first.names("int8 static") == ("layer",)
    assert only(first).reason == ("as fast as can be" if plan.place else only(plan).reason)
    last = plan.at(10**6, "as close as can be")
    assert last.last
    assert only(last).form == "float"
    assert only(last).reason == "as close as can be"
    assert (last.splits, last.scaled) == ((), ())


def numbers_of(layer: LayerPlan, chosen: str, other: str) -> tuple[float, float]:
    """How many times smaller the error of one option is, and what it takes more."""
    tried = {each.option: each for each in layer.considered}
    one, two = tried[chosen], tried[other]
    return 10 ** ((one.sqnr_db - two.sqnr_db) / 10), one.cost - two.cost


def test_what_a_form_gains_over_the_fastest_is_told_in_numbers() -> None:
    layer = only(planned(linear(), towering_tokens))
    times, more = numbers_of(layer, "int8 per-token", "int8 static")
    assert layer.evidence == f"error {times:.3g} times smaller than int8 static's for {more:.3g} us more"


def test_what_the_next_form_would_gain_is_told_of_the_fastest() -> None:
    plan = planned(linear(), even)
    layer = only(plan)
    assert plan.front[1].changed, "there is a next one"
    following = only(plan.at(1, "")).option
    if following.form == "float":
        _, more = numbers_of(layer, "float", "int8 static")
        assert layer.evidence == f"the next one (float) makes no error for {more:.3g} us more"
    else:
        times, more = numbers_of(layer, str(following), "int8 static")
        assert layer.evidence == (
            f"the next one ({following}) makes the error {times:.3g} times smaller for {more:.3g} us more"
        )


def test_of_float_the_best_that_was_rounded_is_told() -> None:
    narrow = replace(SETTINGS, forms=("int8 static", "float"), split=False, insert_nodes=False)
    layer = only(planned(linear(), towering_tokens, narrow))
    _, more = numbers_of(layer, "float", "int8 static")
    (static,) = (each for each in layer.considered if each.option == "int8 static")
    assert layer.form == "float"
    assert layer.evidence == f"{more:.3g} us more than int8 static, which has {static.sqnr_db:.1f} dB"


def test_a_goal_that_decided_leaves_the_numbers() -> None:
    last = only(planned(linear(), even).at(10**6, "fidelity was missed"))
    assert (last.form, last.reason) == ("float", "fidelity was missed")
    assert "us more than" in last.evidence


def test_of_linears_decided_together_the_numbers_are_those_of_all() -> None:
    made = model_of(
        "g (float[B,8,64] x) => (float[B,8,256] y, float[B,8,256] z) { y = MatMul(x, w) z = MatMul(x, v) }",
        w=weight(),
        v=weight()[:, ::-1].copy(),
    )
    one, two = planned(made, towering_tokens).layers
    assert one.evidence == two.evidence
    assert one.evidence.endswith("us more, 2 linears together")


def test_bytes_are_told_as_bytes() -> None:
    blocks = replace(SETTINGS, forms=("int4 blocks", "int8 blocks", "float"), count="bytes", exchange=1e-6)
    layer = only(planned(linear(), even, blocks))
    assert layer.form == "float"
    assert layer.evidence.startswith("48.1 kB more than int8 blocks, which has ")


def test_a_form_that_costs_nothing_more_is_said_to() -> None:
    plain = Measured(Option(), 10.0, (0.04,))
    evened = Measured(Option(scaled=True), 10.0, (0.01,))
    told = evidence(evened, (plain, evened), "time")
    assert told == "error 4 times smaller than int8 static's at no cost"
    assert evidence(plain, (plain,), "time") == ""


REFUSED = {
    "told to stay float": (linear, replace(SETTINGS, keep_float=("lay*",))),
    "too small to pay": (linear, replace(SETTINGS, target=TARGETS["x86-avx2"])),
}


@pytest.mark.parametrize("told", REFUSED)
def test_a_linear_that_stays_float_says_why(told: str) -> None:
    make, settings = REFUSED[told]
    layer = only(planned(make(), even, settings))
    assert (layer.form, layer.sqnr_db) == ("float", None)
    assert told in layer.reason


def test_what_calibration_did_not_see_stays_float_with_its_reason() -> None:
    for statistics, reason in (
        (Statistics(), "calibration did not see its input"),
        (Statistics(skipped={"x": "is inside a subgraph"}), "is inside a subgraph"),
    ):
        layer = only(plan_layers(linear(), statistics, SETTINGS))
        assert (layer.form, layer.reason) == ("float", reason)


def test_linears_come_in_the_order_of_the_graph_with_or_without_names() -> None:
    body = "m = MatMul(x, w) t = Tanh(m) n = MatMul(t, v) y = MatMul(n, w)"
    made = model_of(
        f"g (float[B,8,64] x) => (float[B,8,256] y) {{ {body} }}", w=weight(), v=weight(K).repeat(4, axis=0)
    )
    layers = planned(made, even).layers
    assert [layer.activation for layer in layers] == ["x", "t", "n"]
    assert [layer.name for layer in layers] == ["m", "n", "y"]
    for node, name in zip(made.graph, "abcd", strict=True):
        node.name = name
    assert [layer.name for layer in planned(made, even).layers] == ["a", "c", "d"]


def test_half_precision_stays_float() -> None:
    body = "h = Cast<to = 10>(x) m = MatMul(h, w) y = Cast<to = 1>(m)"
    made = model_of(f"g (float[B,8,64] x) => (float[B,8,256] y) {{ {body} }}", w=weight().astype(np.float16))
    layer = only(planned(made, even))
    assert (layer.form, layer.reason) == ("float", "it computes in float16")


def test_a_linear_inside_a_function_stays_float() -> None:
    """Even if a value there has the name of one that was seen."""
    made = linear()
    constant = ir.node("Constant", [], {"value": ir.tensor(weight())})
    x = ir.Value(name="x")
    product = ir.node("MatMul", [x, constant.outputs[0]], name="inner")
    body = ir.Graph([x], [product.outputs[0]], nodes=[constant, product], opset_imports={"": 18})
    made.functions[("here", "f", "")] = ir.Function("here", "f", graph=body, attributes=[])
    outer, within = planned(made, even).layers
    assert (outer.form, within.form) == ("int8 static", "float")
    assert "functions" in within.reason


def test_linears_that_share_an_activation_share_its_form() -> None:
    made = model_of(
        "g (float[B,8,64] x) => (float[B,8,256] y, float[B,8,256] z) { y = MatMul(x, w) z = MatMul(x, v) }",
        w=weight(),
        v=weight()[:, ::-1].copy(),
    )
    one, two = planned(made, towering_channels, WITHOUT_MUL).layers
    assert one.option == two.option
    assert set(one.outliers) == set(two.outliers) >= {5, 9}


def test_what_matters_more_to_the_output_gets_the_better_form() -> None:
    made = model_of(
        "g (float[B,8,64] x) => (float[B,8,256] y, float[B,8,256] z)"
        " { a = Sin(x) b = Cos(x) y = MatMul(a, w) z = MatMul(b, v) }",
        w=weight(),
        v=weight()[:, ::-1].copy(),
    )
    plan = planned(made, towering_tokens, replace(SETTINGS, exchange=5.0))
    assert plan.weighed({}, SETTINGS) is plan, "nothing is known of any effect"
    for heard, other in (("a", "b"), ("b", "a")):
        weighed = plan.weighed({heard: 1.0, other: 1e-9}, replace(SETTINGS, exchange=1.0))
        changed = [point.changed for point in weighed.front if point.changed]
        assert changed[0] == heard
        assert changed.index(other) > changed.index(heard)


def test_costs_are_those_of_the_rows_added_up_over_the_shapes() -> None:
    def costs(**given: object) -> dict[str, float]:
        layer = only(planned(linear(), towering_channels, replace(SETTINGS, **given)))  # type: ignore[arg-type]
        return {each.option: each.cost for each in layer.considered}

    few, many, both = (costs(rows={"x": rows}) for rows in ((1,), (512,), (1, 512)))
    assert both == pytest.approx({option: few[option] + many[option] for option in few})
    assert costs(rows={"another": (1,)}) == costs(), "what is not known of x is not made up"


def test_what_few_rows_do_not_pay_for_many_do() -> None:
    """Scales by token take a handful of operators more, however few tokens there are."""
    one, many = (
        only(planned(linear(), spiky, replace(CHEAP_SCALES, rows={"x": (rows,)}))) for rows in (1, 4096)
    )
    assert (one.form, many.form) == ("float", "int8 per-token")

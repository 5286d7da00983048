"""Which form a linear takes, on activations made for each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import collect, open_data
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
from onnxq.planning.layers import HOPELESS_DB, LayerPlan, PlanSettings, names_of, plan_layers, relax
from onnxq.runtime import open_session
from onnxq.statistics import Statistic, Statistics
from onnxq.targets import TARGETS
from tests.graphs import model_of

SETTINGS = PlanSettings(TARGETS["x86-vnni"])
K, N = 64, 64
Tokens = Callable[[np.random.Generator], np.ndarray]


def even(random: np.random.Generator) -> np.ndarray:
    return random.normal(size=(24, 8, K))


def towering_tokens(random: np.random.Generator) -> np.ndarray:
    """The first token of each sample is a thousand times the others."""
    tokens = even(random)
    tokens[:, 0] *= 1000
    return tokens


def towering_channel(random: np.random.Generator) -> np.ndarray:
    """One channel of every token drowns the others in any scale that a token has."""
    tokens = even(random)
    tokens[..., 0] *= 1e6
    return tokens


def weight(columns: int = N) -> np.ndarray:
    w = np.random.default_rng(1).normal(size=(K, columns)).astype(np.float32)
    w[0] *= 1e-6  # what towers contributes as much as the others
    return w


def linear(**arrays: np.ndarray) -> ir.Model:
    body = "y = MatMul(x, w)"
    made = model_of(f"g (float[B,8,64] x) => (float[B,8,64] y) {{ {body} }}", **({"w": weight()} | arrays))
    next(iter(made.graph)).name = "layer"
    return made


def planned(model: ir.Model, tokens: Tokens, settings: PlanSettings = SETTINGS) -> tuple[LayerPlan, ...]:
    data = {"x": tokens(np.random.default_rng(0)).astype(np.float32)}
    source = open_data(data, model)
    names = [str(value.name) for node in model.graph for value in node.inputs if value.producer()] + ["x"]
    wanted = {Statistic.CHANNEL_EXTREMES: names, Statistic.HISTOGRAM: names}
    return plan_layers(model, source, collect(model, source, wanted, cache=False), settings)


def form_of(tokens: Tokens, settings: PlanSettings = SETTINGS) -> str:
    (plan,) = planned(linear(), tokens, settings)
    return plan.form


def test_each_kind_of_activation_gets_its_form() -> None:
    assert form_of(even) == "int8 static"
    assert form_of(towering_tokens) == "int8 per-token"
    assert form_of(towering_channel) == "float"


def test_without_scales_per_token_what_needs_them_is_float() -> None:
    assert form_of(towering_tokens, replace(SETTINGS, allow_per_token=False)) == "float"


@pytest.mark.parametrize("tokens", [even, towering_tokens])
def test_the_error_foretold_is_the_error_made(tokens: Tokens) -> None:
    """Against the quantized model itself, as the runtime runs it."""
    model = linear()
    (plan,) = planned(model, tokens, replace(SETTINGS, rows=10_000))
    x = tokens(np.random.default_rng(0)).astype(np.float32)
    source = open_data({"x": x}, model)
    statistics = collect(model, source, {Statistic.CHANNEL_EXTREMES: ["x"]}, cache=False)
    per_token = names_of([plan], "int8 per-token")
    quantized = apply_pass(model, QuantizeLinears(per_token=per_token), statistics).model
    exact = (x.astype(np.float64) @ weight()).reshape(-1, N)
    noise = open_session(quantized).run({"x": x})["y"].reshape(-1, N) - exact
    by_token = (noise**2).sum(axis=1) / (exact**2).sum(axis=1)
    assert plan.sqnr_db == pytest.approx(-10 * np.log10(by_token.mean()), abs=0.5)
    assert plan.sqnr_db > HOPELESS_DB


def test_a_massive_token_does_not_hide_the_others() -> None:
    """Weighed by energy, the error of the small tokens would not show."""
    (plan,) = planned(linear(), towering_tokens, replace(SETTINGS, allow_per_token=False))
    assert plan.form == "float"


def test_seven_bits_are_measured_as_such() -> None:
    seven = replace(SETTINGS, target=replace(SETTINGS.target, weight_bits=7))
    (eight,), (less,) = planned(linear(), even), planned(linear(), even, seven)
    assert less.sqnr_db < eight.sqnr_db


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_methods_and_margins_are_those_of_the_emission(method: str) -> None:
    narrow = planned(linear(), even, replace(SETTINGS, method=method))[0]
    wide = planned(linear(), even, replace(SETTINGS, method=method, margin=1.0))[0]
    assert wide.sqnr_db < narrow.sqnr_db - 3


def test_rows_and_seed_decide_alone() -> None:
    one, two = (planned(linear(), even, replace(SETTINGS, rows=16, seed=seed))[0] for seed in (0, 1))
    assert one == planned(linear(), even, replace(SETTINGS, rows=16, seed=0))[0]
    assert one.sqnr_db != two.sqnr_db


REFUSED = {
    "told to stay float": (linear, replace(SETTINGS, keep_float=("lay*",))),
    "too small to pay": (linear, replace(SETTINGS, target=TARGETS["x86-avx2"])),
}


@pytest.mark.parametrize("told", REFUSED)
def test_a_linear_that_stays_float_says_why(told: str) -> None:
    make, settings = REFUSED[told]
    (plan,) = planned(make(), even, settings)
    assert (plan.form, plan.sqnr_db) == ("float", None)
    assert told in plan.reason


def test_what_calibration_did_not_see_stays_float_with_its_reason() -> None:
    model = linear()
    source = open_data({"x": np.ones((4, 8, K), np.float32)}, model)
    for statistics, reason in (
        (Statistics(), "calibration did not see its input"),
        (Statistics(skipped={"x": "is inside a subgraph"}), "is inside a subgraph"),
    ):
        (plan,) = plan_layers(model, source, statistics, SETTINGS)
        assert (plan.form, plan.reason) == ("float", reason)


def test_linears_come_in_the_order_of_the_graph_with_or_without_names() -> None:
    body = "m = MatMul(x, w) t = Tanh(m) n = MatMul(t, v) y = MatMul(n, w)"
    made = model_of(
        f"g (float[B,8,64] x) => (float[B,8,64] y) {{ {body} }}", w=weight(), v=weight()[:, ::-1].copy()
    )
    plans = planned(made, even)
    assert [plan.activation for plan in plans] == ["x", "t", "n"]
    assert [plan.name for plan in plans] == ["m", "n", "y"]
    for node, name in zip(made.graph, "abcd", strict=True):
        node.name = name
    assert [plan.name for plan in planned(made, even)] == ["a", "c", "d"]


def test_half_precision_stays_float() -> None:
    body = "h = Cast<to = 10>(x) m = MatMul(h, w) y = Cast<to = 1>(m)"
    made = model_of(f"g (float[B,8,64] x) => (float[B,8,64] y) {{ {body} }}", w=weight().astype(np.float16))
    (plan,) = planned(made, even)
    assert (plan.form, plan.reason) == ("float", "it computes in float16")


def test_a_linear_inside_a_function_stays_float() -> None:
    """Even if a value there has the name of one that was seen."""
    made = linear()
    constant = ir.node("Constant", [], {"value": ir.tensor(weight())})
    x = ir.Value(name="x")
    product = ir.node("MatMul", [x, constant.outputs[0]], name="inner")
    body = ir.Graph([x], [product.outputs[0]], nodes=[constant, product], opset_imports={"": 18})
    made.functions[("here", "f", "")] = ir.Function("here", "f", graph=body, attributes=[])
    outer, within = planned(made, even)
    assert (outer.form, within.form) == ("int8 static", "float")
    assert "functions" in within.reason


def plan_of(name: str, form: str, sqnr_db: float | None) -> LayerPlan:
    return LayerPlan(name, "x", 1, 1, form, "because", sqnr_db)


def test_relaxing_takes_the_worst_first_and_keeps_the_order() -> None:
    plans = [
        plan_of("good", "int8 static", 40.0),
        plan_of("worst", "int8 per-token", 9.0),
        plan_of("float", "float", None),
        plan_of("bad", "int8 static", 12.0),
    ]
    once = relax(plans, 1)
    assert [plan.form for plan in once] == ["int8 static", "float", "float", "int8 static"]
    assert once[2].reason == "because", "it was float before"
    assert names_of(relax(once, 1), "float") == ("worst", "float", "bad")
    assert names_of(relax(plans, 99), "float") == ("good", "worst", "float", "bad")
    assert relax(plans, 0) == tuple(plans)

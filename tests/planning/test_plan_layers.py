"""Which form a linear takes, on activations made for each answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.planning.layers import plan_layers
from onnxq.statistics import Statistics
from onnxq.targets import TARGETS
from tests.graphs import model_of
from tests.planning.one_layer import (
    ALL_FORMS,
    CHEAP_SCALES,
    SETTINGS,
    WITHOUT_MUL,
    K,
    Tokens,
    even,
    linear,
    only,
    planned,
    spiky,
    towering_channels,
    towering_tokens,
    uneven,
    weight,
)


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


def test_a_hopeless_form_is_left_whatever_it_costs_to_leave_it() -> None:
    stubborn = replace(SETTINGS, exchange=1e9, forms=("int8 static", "float"), split=False)
    assert only(planned(linear(), towering_tokens, stubborn)).form == "float"
    assert only(planned(linear(), even, stubborn)).form == "int8 static"


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


@pytest.mark.parametrize("tokens", [towering_tokens, towering_channels, uneven])
def test_a_plan_among_fewer_options_is_the_plan_that_had_no_others(tokens: Tokens) -> None:
    narrow = replace(ALL_FORMS, forms=("int8 static", "int8 blocks"), split=False)
    anew = planned(linear(), tokens, narrow)
    among = planned(linear(), tokens, ALL_FORMS).among(
        lambda option: option.form in narrow.forms and not option.split and not option.copied, narrow
    )
    assert among.layers == anew.layers
    assert [point.cost for point in among.front] == [point.cost for point in anew.front]


def test_a_linear_keeps_what_it_has_where_nothing_else_is_allowed() -> None:
    plan = planned(linear(), even)
    assert plan.among(lambda option: option.form == "int4 blocks", SETTINGS).layers == plan.layers


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

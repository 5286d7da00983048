"""What the report is told of a choice: in words, and in numbers."""

from __future__ import annotations

from dataclasses import replace

from onnxq.planning.front import Measured
from onnxq.planning.layer_plan import LayerPlan
from onnxq.planning.options import Option
from onnxq.planning.reasons import evidence
from tests.graphs import model_of
from tests.planning.one_layer import (
    SETTINGS,
    even,
    linear,
    only,
    planned,
    towering_channels,
    towering_tokens,
    weight,
)


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

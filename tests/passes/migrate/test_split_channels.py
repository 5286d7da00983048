"""Channels leave a product for one of their own, and nobody can tell from the outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.migrate.split_channels import SplitChannels
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import PassResult, apply_pass, broken_promise
from onnxq.recipe.spec import format_pass, parse_pass
from onnxq.statistics import ChannelExtremes, Histogram, Rows, Statistic, Statistics, TensorStatistics
from onnxq.verify import Verdict
from tests.graphs import model_of, ops_of
from tests.passes.migrate.families import (
    C,
    activation_statistics,
    arrays_of,
    built,
    every_spelling,
    family,
    judged,
    linears_of,
    made_by,
    norm_statistics,
    rewritten,
)

TOWERS = (2, 9, 13)
HIDDEN = "m = MatMul(x, w) h = Add(m, b) n = Relu(h)"
NORM = "n = LayerNormalization(x, gamma, beta)"


def seen(*names: str, towers: tuple[int, ...] = TOWERS) -> Statistics:
    reach = np.ones(C)
    reach[list(towers)] = 30.0
    return Statistics(
        {name: TensorStatistics(1, channel=ChannelExtremes(-reach, reach)) for name in names or ("n",)}
    )


def split(model: ir.Model, a_pass: SplitChannels, statistics: Statistics | None = None) -> PassResult:
    feeds = {
        value.name: np.asarray(True)
        if value.dtype == ir.DataType.BOOL
        else np.random.default_rng(9).normal(size=(5, C)).astype(value.dtype.numpy())
        for value in model.graph.inputs
    }
    return rewritten(model, a_pass, statistics or seen(), feeds)


def reasons(result: PassResult) -> str:
    return "; ".join(reject.reason for reject in result.rejects)


def dead_rows(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Rows of zeros by name of the activation, where a linear has any."""
    found = {}
    for node in nodes(model):
        linear = find_linear(node)
        if isinstance(linear, Linear) and (dead := np.flatnonzero(~linear.weight.any(axis=1))).size:
            found[str(linear.activation.name)] = tuple(dead.tolist())
    return found


FIRES = {
    "a linear": (f"{HIDDEN} y = MatMul(n, v)", ["Sum"]),
    "a bias": (f"{HIDDEN} p = MatMul(n, v) y = Add(b, p)", ["Sum"]),
    "a Gemm": (f"{HIDDEN} y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(n, v, b)", ["Sum"]),
    "a residual": (f"{HIDDEN} p = MatMul(n, v) q = Add(p, b) y = Add(x, q)", ["Sum"]),
    "a Sum": (f"{HIDDEN} p = MatMul(n, v) q = Add(p, b) y = Sum(x, q, n)", ["Sum"]),
    "an output in the middle": (f"{HIDDEN} p = MatMul(n, v) q = Add(p, b) y = Add(x, q)", ["Sum"]),
    "three linears": (
        f"{HIDDEN} q = MatMul(n, v) k = MatMul(n, u) l = Gemm(n, o, b) s = Mul(q, k) y = Mul(s, l)",
        ["Sum"] * 3,
    ),
    "two linears, one sum": (f"{HIDDEN} q = MatMul(n, v) k = MatMul(n, u) y = Add(q, k)", ["Sum"]),
    "a norm": (f"{NORM} q = MatMul(n, v) p = Add(q, b) y = Add(p, n)", ["Sum"]),
    "two readers of the product": (f"{HIDDEN} p = MatMul(n, v) t = Tanh(p) y = Mul(p, t)", ["Sum"]),
    "a product with itself": (f"{HIDDEN} p = MatMul(n, v) y = Add(p, p)", ["Sum", "Add"]),
    "a tied weight": (f"{HIDDEN} p = MatMul(n, w) y = Tanh(p)", ["Sum"]),
}


@pytest.mark.parametrize("case", FIRES)
@pytest.mark.parametrize("form", ["gather", "auto"])
def test_all_linears_that_read_it_share_one_narrow_tensor(case: str, form: str) -> None:
    body, sums = FIRES[case]
    outputs = "double[N,16] y, double[N,16] q" if case == "an output in the middle" else "double[N,16] y"
    result = split(built(body, outputs), SplitChannels(form=form, channels=3))
    assert result.modified
    assert [op for op in ops_of(result.model) if op == "Sum" or (op == "Add" and "Add" in sums)][-len(sums) :]
    assert ops_of(result.model).count("Sum") == sums.count("Sum")
    made = made_by(result.model, SplitChannels)
    assert made.count("Gather") == (0 if form == "auto" and case != "a norm" else 1)
    assert dead_rows(result.model) == {"n": TOWERS}


def test_the_residual_sum_takes_the_product_in() -> None:
    """One node for both additions, and no Add for the runtime to fuse with the norm behind."""
    body = f"{HIDDEN} p = MatMul(n, v) q = Add(p, b) s = Add(q, x) y = LayerNormalization(s, gamma, beta)"
    result = split(built(body), SplitChannels(channels=2))
    (sum_node,) = [node for node in nodes(result.model) if node.op_type == "Sum"]
    assert len(sum_node.inputs) == 3
    assert sum_node.outputs[0].name == "s", "statistics by name still fit"


def test_a_residual_sum_of_another_layer_hides_no_outliers() -> None:
    body = f"{HIDDEN} p = MatMul(n, v) t = Tanh(x) q = MatMul(t, u) y = Add(p, q)"  # two branches, one sum
    result = split(built(body), SplitChannels(channels=2), seen("n", "t"))
    assert dead_rows(result.model).keys() == {"n", "t"}


GATED = (
    "g = MatMul(x, w) s = Sigmoid(g) a = Mul(g, s) k = MatMul(x, u) f = Add(k, b) "
    "n = Mul({}) y = MatMul(n, v)"
)


@pytest.mark.parametrize("factors", ["a, f", "f, a"])
def test_a_gated_branch_is_made_of_the_columns_of_both_linears(factors: str) -> None:
    model = built(GATED.format(factors))
    result = split(model, SplitChannels(form="branch", channels=2))
    assert "Gather" not in ops_of(result.model)
    shapes = sorted(linear.weight.shape for linear in linears_of(result.model))
    assert shapes == [(2, C), (C, 2), (C, 2), (C, C), (C, C), (C, C)]


@pytest.mark.parametrize(
    "body",
    [
        "n = Tanh(x) y = MatMul(n, v)",
        "m = MatMul(x, w) n = Tanh(m) y = MatMul(n, v)",
        f"{NORM} y = MatMul(n, v)",
        "m = MatMul(x, w) r = Relu(m) n = Reshape(r, shape) y = MatMul(n, v)",
    ],
)
def test_a_branch_is_refused_where_nothing_narrow_gives_it(body: str) -> None:
    model = built(body)
    if "shape" in body:
        model = model_of(
            f"g (double[N,16] x) => (double[N,16] y) {{ {body} }}",
            w=np.eye(C),
            v=np.eye(C),
            shape=np.array([-1, C]),
        )
    result = split(model, SplitChannels(form="branch", channels=2))
    assert "no feed-forward block" in reasons(result)
    assert split(model, SplitChannels(form="auto", channels=2)).modified


def test_a_weight_that_two_layers_read_is_cloned() -> None:
    model = built("n = Tanh(x) p = MatMul(n, w) q = MatMul(x, w) y = Add(p, q)")
    result = split(model, SplitChannels(channels=2))
    assert result.modified
    np.testing.assert_array_equal(arrays_of(result.model)["w"], arrays_of(model)["w"])


def test_a_linear_inside_a_branch_is_split_there() -> None:
    body = (
        "n = Tanh(x) y = If(c) <then_branch = t () => (double[N,16] p) { p = MatMul(n, w) }, "
        "else_branch = e () => (double[N,16] q) { m = MatMul(n, v) q = Add(m, b) }>"
    )
    result = split(built(body, inputs="double[N,16] x, bool c"), SplitChannels(channels=2))
    assert made_by(result.model, SplitChannels).count("Gather") == 2


def halves(size: float) -> ir.Model:
    arrays = {"w": np.full((C, C), size, np.float16)}
    return model_of("g (float16[N,16] x) => (float16[N,16] y) { n = Tanh(x) y = MatMul(n, w) }", **arrays)


def test_a_product_that_might_leave_float16_is_refused() -> None:
    assert not split_half(halves(900.0)).modified
    assert "overflow float16" in reasons(split_half(halves(900.0)))
    assert split_half(halves(1.0)).modified


def split_half(model: ir.Model) -> PassResult:
    return apply_pass(model, SplitChannels(channels=2), seen())


def test_names_pick_the_places() -> None:
    body = f"{HIDDEN} p = MatMul(n, v) t = Tanh(p) q = MatMul(t, u) y = Tanh(q)"
    model, known = built(body), seen("n", "t")
    (label,) = [str(node.name) or "q" for node in nodes(model) if node.outputs[0].name == "q"]
    everywhere = SplitChannels(channels=2)
    assert dead_rows(split(model, everywhere, known).model).keys() == {"n", "t"}
    assert dead_rows(split(model, SplitChannels(channels=2, only=("n",)), known).model).keys() == {"n"}
    assert dead_rows(split(model, SplitChannels(channels=2, skip=("n",)), known).model).keys() == {"t"}
    assert dead_rows(split(model, SplitChannels(channels=2, skip=(label,)), known).model).keys() == {"n"}
    planned = SplitChannels(plan=(("n", (0, 5)), (label, 1)))
    assert dead_rows(split(model, planned, known).model) == {"n": (0, 5), "t": TOWERS[:1]}
    adaptive = SplitChannels(plan=(("n", 0),))
    assert dead_rows(split(model, adaptive, seen(towers=TOWERS[:2])).model) == {"n": TOWERS[:2]}


def test_kinds_of_sites() -> None:
    model = built(f"{NORM} p = MatMul(n, v) t = Tanh(p) y = MatMul(t, u)")
    for sites, expected in (("norm", {"n"}), ("hidden", {"t"}), ("all", {"n", "t"})):
        result = split(model, SplitChannels(channels=1, sites=sites), seen("n", "t"))
        assert dead_rows(result.model).keys() == expected


def test_a_plan_that_does_not_fit_is_refused_in_words() -> None:
    model = built(f"{HIDDEN} y = MatMul(n, v)")
    assert "no channel 16" in reasons(split(model, SplitChannels(plan=(("n", (3, 16)),))))
    assert "names no channel" in reasons(split(model, SplitChannels(plan=(("n", ()),))))
    unseen = split(model, SplitChannels(plan=(("n", (3,)),)), seen("elsewhere"))
    assert unseen.modified, "channels that are named need no statistics"


def test_a_plan_survives_being_written_down() -> None:
    a_pass = SplitChannels(form="branch", plan=(("/layer.0/Mul_output", (3, 17)), ("fc2", 8)), gain=2.0)
    assert parse_pass(format_pass(a_pass)) == a_pass


def test_it_asks_for_tokens_only_where_they_decide() -> None:
    model = built(f"{HIDDEN} y = MatMul(n, v)")
    both = {Statistic.CHANNEL_EXTREMES, Statistic.ROWS}
    assert SplitChannels().wanted(model).keys() == both
    assert SplitChannels(plan=(("n", 0),)).wanted(model).keys() == both
    for a_pass in (SplitChannels(channels=4), SplitChannels(measured=False), SplitChannels(plan=(("n", 4),))):
        assert a_pass.wanted(model).keys() == {Statistic.CHANNEL_EXTREMES}


@every_spelling
def test_real_exports_keep_their_function(name, opset, dynamo, precision):
    before = family(name, opset, dynamo, precision)
    form = "gather" if opset == 17 or precision == "float16" else "auto"
    a_pass = SplitChannels(form=form, channels=3, least=8)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert result.modified
    assert result.settled
    assert broken_promise(before, result.model, a_pass) == ""
    judgement = judged(before, result.model)
    assert judgement.verdict is Verdict.EQUAL, judgement.reason
    assert not apply_pass(result.model, a_pass, activation_statistics(before)).changes


@pytest.mark.parametrize(("opset", "dynamo"), [(17, False), (18, True), (23, True)])
@pytest.mark.parametrize("name", ["post", "pre", "decoder", "crossed"])
def test_hidden_tensors_of_real_exports_are_branched(name, opset, dynamo):
    before = family(name, opset, dynamo)
    a_pass = SplitChannels(form="branch", channels=2, least=8)
    result = apply_pass(before, a_pass, activation_statistics(before))
    narrow = [linear for linear in linears_of(result.model) if linear.weight.shape == (2, 16)]
    assert len(narrow) == 2, "two layers"
    assert "Gather" not in made_by(result.model, a_pass)
    assert judged(before, result.model).verdict is Verdict.EQUAL


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["post", "pre", "decoder", "crossed"]), st.data())
def test_any_channels_keep_the_function(name: str, data: st.DataObject) -> None:
    before = family(name, 18, True)
    form = data.draw(st.sampled_from(["gather", "auto"]))
    picks = st.lists(st.integers(0, 15), min_size=1, max_size=15, unique=True).map(tuple)
    names = sorted({str(linear.activation.name) for linear in linears_of(before)})
    plan = tuple((each, data.draw(picks)) for each in names)
    a_pass = SplitChannels(form=form, plan=plan, least=8)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert result.modified
    judgement = judged(before, result.model)
    assert judgement.verdict is Verdict.EQUAL, judgement.reason


@pytest.mark.parametrize("form", ["gather", "auto"])
@pytest.mark.parametrize("name", ["post", "pre", "decoder", "crossed"])
def test_it_goes_before_and_behind_the_passes_that_scale(name: str, form: str) -> None:
    before = family(name, 18, True)
    splitting = SplitChannels(form=form, channels=3, least=8)
    for passes in (
        (splitting, ShiftScale(), InsertScale(gain=0.0)),
        (ShiftScale(), InsertScale(gain=0.0), splitting),
        (ShiftScale(), splitting, InsertScale(gain=0.0)),
    ):
        model = before
        for a_pass in passes:
            known = Statistics({**norm_statistics(model), **activation_statistics(model)})
            result = apply_pass(model, a_pass, known)
            assert result.modified, a_pass
            model = result.model
        judgement = judged(before, model)
        assert judgement.verdict is Verdict.EQUAL, judgement.reason


def test_other_layers_keep_their_constants() -> None:
    before = family("pre", 18, True)
    linear = linears_of(before)[-1]
    plan = ((str(linear.activation.name), (1, 4)),)
    result = apply_pass(before, SplitChannels(form="branch", plan=plan, least=8), Statistics())
    assert result.modified
    old, new = arrays_of(before), arrays_of(result.model)
    for name in old.keys() & new.keys():
        np.testing.assert_array_equal(old[name], new[name], err_msg=name)
    holder = linear.bias_node or linear.node
    assert old.keys() - new.keys() == {str(linear.root.name), str(holder.inputs[linear.bias_index].name)}


def test_the_narrow_product_stays_float_and_the_wide_one_does_not() -> None:
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(64, 64)).astype(np.float32) / 8 for name in ("w", "v")}
    model = model_of(
        "g (float[N,64] x) => (float[N,64] y) { m = MatMul(x, w) n = Relu(m) y = MatMul(n, v) }", **arrays
    )
    towers = tuple(range(15))
    for form in ("gather", "branch"):
        parted = apply_pass(model, SplitChannels(form=form, plan=(("n", towers),)), Statistics()).model
        known = Statistics(
            {
                str(linear.activation.name): TensorStatistics(
                    1, histogram=Histogram.of(np.array([-1.0, 1.0]))
                )
                for linear in linears_of(parted)
            }
        )
        integer = apply_pass(parted, QuantizeLinears(), known)
        assert ops_of(integer.model).count("MatMulIntegerToFloat") == 2
        assert ops_of(integer.model).count("MatMul") == (1 if form == "gather" else 2)
        assert "too small to pay" in reasons(integer)
        assert not apply_pass(integer.model, SplitChannels(channels=2), seen()).changes


def test_tokens_decide_where_there_are_any() -> None:
    model = built(f"{HIDDEN} y = MatMul(n, v)")
    values = np.random.default_rng(2).normal(size=(256, C)).astype(np.float32)
    low, high = values.min(axis=0).astype(float), values.max(axis=0).astype(float)
    rows = Rows.of(values)
    even = Statistics({"n": TensorStatistics(256, channel=ChannelExtremes(low, high), rows=rows)})
    assert "no channel stands out" in reasons(split(model, SplitChannels(), even))
    values[:, 4] *= 50
    high[4], low[4] = values[:, 4].max(), values[:, 4].min()
    odd = Statistics({"n": TensorStatistics(256, channel=ChannelExtremes(low, high), rows=Rows.of(values))})
    assert 4 in dead_rows(split(model, SplitChannels(), odd).model)["n"]

"""Channels go to several smaller copies, and nobody can tell from the outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.passes.migrate.copies import Rules, choose_copies, copies_at, copying_error, offsets_of, step_of
from onnxq.passes.migrate.disassemble_channels import DisassembleChannels
from onnxq.passes.migrate.outliers import Product
from onnxq.passes.migrate.rounding_trial import AS_SEEN, TrialBits
from onnxq.passes.migrate.split_channels import SplitChannels
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.passes.quantize.ranges import params_for
from onnxq.passes.quantize.weights import quantize_weight
from onnxq.pipeline import PassResult, apply_pass, broken_promise, run
from onnxq.recipe.spec import format_pass, parse_pass
from onnxq.statistics import ChannelExtremes, Rows, Statistics, TensorStatistics
from onnxq.verify import Verdict
from tests.graphs import model_of, ops_of, outputs_of
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
    rewritten,
)
from tests.passes.migrate.test_split_groups import gather_on

TOWERS = (2, 9)
NORM = "n = LayerNormalization(x, gamma, beta)"
GATED = "g = MatMul(x, w) s = Sigmoid(g) a = Mul(g, s) k = MatMul(x, u) f = Add(k, b) n = Mul(a, f)"


def seen(name: str = "n", seed: int | None = None) -> Statistics:
    reach = np.ones(C)
    reach[list(TOWERS)] = 30.0
    if seed is not None:
        reach = np.random.default_rng(seed).lognormal(sigma=1.5, size=C)
    return Statistics({name: TensorStatistics(1, channel=ChannelExtremes(-reach, reach))})


def parted(model: ir.Model, a_pass: DisassembleChannels, statistics: Statistics | None = None) -> PassResult:
    feeds = {"x": np.random.default_rng(9).normal(size=(5, C))}
    return rewritten(model, a_pass, statistics or seen(), feeds)


def reasons(result: PassResult) -> str:
    return "; ".join(reject.reason for reject in result.rejects)


FORMS = {
    "a linear": ("m = MatMul(x, w) n = Add(m, b) y = MatMul(n, v)", []),
    "a Gemm": ("n = Gemm<alpha = 0.5, transB = 1>(x, w, b) p = MatMul(n, v) y = Add(p, b)", []),
    "a Relu": ("m = MatMul(x, w) h = Add(m, b) n = Relu(h) y = Gemm<transB = 1>(n, v, b)", []),
    "a gated block": (f"{GATED} y = MatMul(n, v)", []),
    "a gated block and two linears": (f"{GATED} p = MatMul(n, v) q = MatMul(n, o) y = Add(p, q)", []),
    "a norm": (f"{NORM} q = MatMul(n, w) k = MatMul(n, v) y = Mul(q, k)", ["Gather"]),
    "a norm and a residual": (f"{NORM} q = MatMul(n, w) y = Add(q, n)", ["Gather", "Mul"]),
    "a Tanh": ("n = Tanh(x) p = MatMul(n, v) y = Add(p, b)", ["Gather", "Mul"]),
    "a SiLU": ("g = MatMul(x, w) s = Sigmoid(g) n = Mul(g, s) y = MatMul(n, v)", ["Gather", "Mul"]),
    "a Relu that others read": (
        "m = MatMul(x, w) n = Relu(m) p = MatMul(n, v) y = Add(p, n)",
        ["Gather", "Mul"],
    ),
    "a linear read inside": (
        "m = MatMul(x, w) n = Relu(m) p = MatMul(n, v) y = Add(p, m)",
        ["Gather", "Mul"],
    ),
    "a gate that others read": (f"{GATED} p = MatMul(n, v) y = Add(p, g)", ["Gather", "Mul"]),
    "a weight that both share": ("n = MatMul(x, w) y = MatMul(n, w)", []),
}


@pytest.mark.parametrize("stagger", [False, True])
@pytest.mark.parametrize("case", FORMS)
def test_each_form_costs_what_it_should(case: str, stagger: bool) -> None:
    body, expected = FORMS[case]
    result = parted(built(body), DisassembleChannels(stagger=stagger))
    assert result.modified
    made = [op for op in made_by(result.model, DisassembleChannels) if op in ("Gather", "Mul")]
    assert made == expected
    widths = [linear.channels for linear in linears_of(result.model)]
    assert 32 in widths, "16 channels and the copies, padded to the next 16"


@pytest.mark.parametrize("case", FORMS)
def test_without_new_nodes_only_columns_are_repeated(case: str) -> None:
    body, expected = FORMS[case]
    result = parted(built(body), DisassembleChannels(insert_nodes=False, stagger=True))
    assert result.modified == (not expected)
    assert made_by(result.model, DisassembleChannels) == []
    if expected:
        assert "only a new node" in reasons(result)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1, 7, 16]))
def test_any_copies_keep_the_function(case: str, seed: int, stagger: bool, multiple: int) -> None:
    known = seen(seed=seed)
    theta = 0.5 * float(known["n"].channel.high.max())
    a_pass = DisassembleChannels(theta=theta, stagger=stagger, multiple=multiple, least=1)
    assert parted(built(FORMS[case][0]), a_pass, known).modified


@every_spelling
def test_real_exports_keep_their_function(name, opset, dynamo, precision):
    before, a_pass = family(name, opset, dynamo, precision), DisassembleChannels(theta=3.0, least=8)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert result.modified
    assert result.settled
    assert broken_promise(before, result.model, a_pass) == ""
    judgement = judged(before, result.model)
    assert judgement.verdict is Verdict.EQUAL, judgement.reason


def test_it_leaves_channels_that_were_split_off_alone() -> None:
    model = built("n = Tanh(x) p = MatMul(n, v) y = Add(p, b)")
    split = apply_pass(model, SplitChannels(plan=(("n", TOWERS),)), seen()).model
    held = parted(split, DisassembleChannels())
    assert "times only" in reasons(held)


def test_other_layers_keep_their_constants() -> None:
    before = family("decoder", 18, True)
    linear = linears_of(before)[-2]
    a_pass = DisassembleChannels(theta=1.0, only=(str(linear.activation.name),), least=8)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert result.modified
    old, new = arrays_of(before), arrays_of(result.model)
    for name in old.keys() & new.keys():
        np.testing.assert_array_equal(old[name], new[name], err_msg=name)
    assert len(old.keys() - new.keys()) == 3, "gate, up and down"


def test_options_survive_being_written_down() -> None:
    a_pass = DisassembleChannels(plan=(("fc2", 3.5), ("fc1", 0.0)), stagger=True)
    assert parse_pass(format_pass(a_pass)) == a_pass


def product_of(seed: int = 0, towers: int = 2, bits: TrialBits = AS_SEEN) -> Product:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(300, 48)).astype(np.float32)
    rows[:, :towers] *= 25
    low, high = rows.min(axis=0).astype(float), rows.max(axis=0).astype(float)
    return Product(low, high, random.normal(size=(48, 24)), rows, bits)


@pytest.mark.parametrize("stagger", [False, True])
@pytest.mark.parametrize("theta", [4.0, 10.0, 40.0])
@pytest.mark.parametrize("bits", [AS_SEEN, TrialBits(6, 6, 0.2), TrialBits(8, 4, 0.0)], ids=str)
def test_the_error_is_that_of_the_integer_product(bits: TrialBits, theta: float, stagger: bool) -> None:
    product = product_of(bits=bits)
    counts = copies_at(product, theta, Rules())
    index = np.repeat(np.arange(48), counts)
    wide = product.rows / counts
    offsets = offsets_of(counts, step_of(product, counts, stagger)) if stagger else np.zeros(len(index))
    copies = wide[:, index] + offsets.astype(np.float32)
    ends = (float(end) * (1 + bits.margin) for end in (copies.min(), copies.max()))
    grid = params_for(*ends, bits.activation)
    assert step_of(product, counts, stagger) == pytest.approx(float(grid.scale), rel=1e-5)
    rounded = quantize_weight(product.weight[index], bits.weight).values
    given = grid.apply(copies)
    errors = given @ rounded - offsets @ rounded - product.rows @ product.weight
    expected = (errors[:256] ** 2).sum(axis=1).mean()
    assert copying_error(product, counts, stagger) == pytest.approx(expected, rel=2e-2)


def test_copies_are_padded_to_the_next_multiple_and_reach_no_further_than_the_threshold() -> None:
    product = product_of()
    for theta in (4.0, 7.0, 20.0):
        counts = copies_at(product, theta, Rules(multiple=16))
        assert counts.sum() % 16 == 0
        reach = np.maximum(-product.low, product.high)
        assert (reach / counts).max() <= theta * (1 + 1e-6)
    assert (copies_at(product, 1e3, Rules(multiple=16)) == 1).all(), (
        "nothing is padded where nothing is split"
    )


def test_doing_nothing_is_a_candidate() -> None:
    even = product_of(towers=0)
    assert choose_copies(even, Rules()).gain < 1.5
    assert choose_copies(product_of(), Rules()).gain > 5


def test_staggered_copies_round_finer() -> None:
    """One channel in eight copies: eight steps in one, or eight that round in turn."""
    product = product_of(towers=1)
    counts = np.ones(48, np.int64)
    counts[0] = 8
    alone = Product(product.low, product.high, product.weight * (np.arange(48) == 0)[:, None], product.rows)
    plain, staggered = copying_error(alone, counts), copying_error(alone, counts, stagger=True)
    assert staggered < plain / 3


def test_tokens_decide_where_there_are_any() -> None:
    product = product_of(towers=0)
    model = model_of(
        "g (double[N,48] x) => (double[N,24] y) { n = Tanh(x) y = MatMul(n, w) }", w=product.weight
    )
    rows = Rows.of(product.rows)
    known = TensorStatistics(300, channel=ChannelExtremes(product.low, product.high), rows=rows)
    held = apply_pass(model, DisassembleChannels(), Statistics({"n": known}))
    assert "times only" in reasons(held)
    assert ops_of(held.model) == ["Tanh", "MatMul"]


@pytest.mark.parametrize("a_pass", [DisassembleChannels(), SplitChannels()], ids=lambda each: each.name)
def test_bits_decide_whether_anything_is_worth_it(a_pass) -> None:
    """Three bits of a weight err more than a wide range of eight does."""
    random = np.random.default_rng(2)
    rows = random.normal(size=(300, 48)).astype(np.float32)
    rows[:, 5] *= 8
    weight = random.normal(size=(48, 24))
    weight[5] /= 8
    model = model_of("g (double[N,48] x) => (double[N,24] y) { n = Tanh(x) y = MatMul(n, w) }", w=weight)
    known = Statistics({"n": TensorStatistics.of(rows)})
    for weight_bits, activation_bits in ((8, 8), (8, 4), (3, 8)):
        given = replace(a_pass, weight_bits=weight_bits, activation_bits=activation_bits)
        assert apply_pass(model, given, known).modified == (weight_bits == 8)


EIGHT_COPIES = DisassembleChannels(theta=30 / 7.9, multiple=1, weight_bits=7)
"""Of the one channel that towers in `towered`."""


def towered() -> tuple[ir.Model, np.ndarray]:
    """A product whose first channel reaches thirty times as far; weights are integers times 1/63."""
    random = np.random.default_rng(3)
    x = random.uniform(-1, 1, (400, 48)).astype(np.float32)
    x[:, 0] *= 30
    weight = random.integers(-2, 3, (48, 24)).astype(np.float32)
    weight[0] = 63 * random.choice([-1, 1], 24)
    body = "g (float[M,48] x) => (float[M,24] y) { y = MatMul(x, w) }"
    return model_of(body, w=weight / 63), x


def integer_error(a_pass: DisassembleChannels, bits: int, margin: float) -> float:
    """What the integer product of onnxruntime loses; weights of 7 bits lose nothing."""
    model, x = towered()
    rounding = QuantizeLinears(weight_bits=7, activation_bits=bits, margin=margin)
    after = run(model, [a_pass, rounding], gather=gather_on(x), verify="never").model
    assert "MatMulIntegerToFloat" in ops_of(after)
    exact = x.astype(np.float64) @ model.graph.initializers["w"].const_value.numpy()
    return float(np.square(outputs_of(after, {"x": x})["y"] - exact).mean())


@pytest.mark.parametrize(("bits", "margin"), [(8, 0.0), (8, 0.3), (6, 0.1), (4, 0.0), (4, 0.3)])
def test_staggered_copies_round_finer_in_a_real_integer_product(bits: int, margin: float) -> None:
    """Eight equal copies err as one channel of eight steps does, staggered ones like one of a single step."""
    told = replace(EIGHT_COPIES, activation_bits=bits, margin=margin)
    equal, staggered = (
        integer_error(replace(told, stagger=stagger), bits, margin) for stagger in (False, True)
    )
    assert staggered < equal / 25


@pytest.mark.parametrize("wrong", [{"activation_bits": 8}, {"margin": 0.0}], ids=str)
def test_staggering_goes_by_the_step_that_rounding_will_have(wrong: dict[str, float]) -> None:
    right = replace(EIGHT_COPIES, stagger=True, activation_bits=4, margin=0.3)
    assert integer_error(right, 4, 0.3) < integer_error(replace(right, **wrong), 4, 0.3) / 1.5

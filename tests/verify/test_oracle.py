"""The oracle on pairs of models whose verdict is known."""

from __future__ import annotations

import weakref

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import Contract
from onnxq.errors import BackendError
from onnxq.verify import Budget, Feed, OracleSettings, Verdict, judge
from onnxq.verify.hosts import InProcess
from onnxq.verify.reference import SHAKES, Reference
from tests.graphs import model_of

HERE = OracleSettings(isolated=False)
BITWISE, REASSOCIATES, LOSSY = Contract.BITWISE, Contract.REASSOCIATES, Contract.LOSSY


def graph(body: str, outputs: str = "float[n,4] y", **constants: np.ndarray):
    return model_of(f"g (float[n,4] x) => ({outputs}) {{ {body} }}", **constants)


def verdict(before, after, contract, **options):
    return judge(before, after, contract, settings=HERE, **options)


@pytest.mark.parametrize(
    ("before", "after", "contract", "expected"),
    [
        ("y = Identity(x)", "y = Identity(x)", BITWISE, Verdict.EQUAL),
        ("h = Neg(x) y = Neg(h)", "y = Identity(x)", BITWISE, Verdict.EQUAL),
        ("h = Sub(x, x) y = Add(x, h)", "y = Identity(x)", BITWISE, Verdict.DIFFERENT),  # on NaN and infinity
        ("h = Sub(x, x) y = Add(x, h)", "y = Identity(x)", REASSOCIATES, Verdict.EQUAL),
        ("y = Relu(x)", "y = Identity(x)", REASSOCIATES, Verdict.DIFFERENT),
        ("y = Abs(x)", "y = Neg(x)", REASSOCIATES, Verdict.DIFFERENT),  # right on negative feeds alone
        ("h = Sum(x, x, x) y = Sum(h, x)", "h = Sum(x, x) y = Sum(h, h)", REASSOCIATES, Verdict.EQUAL),
        ("h = Exp(x) y = Log(h)", "y = Identity(x)", REASSOCIATES, Verdict.DIFFERENT),  # exp overflows
        ("y = Softmax(x)", "h = Exp(x) s = ReduceSum(h) y = Div(h, s)", REASSOCIATES, Verdict.DIFFERENT),
    ],
)
def test_verdict(before, after, contract, expected):
    judgement = verdict(graph(before), graph(after), contract)
    assert judgement.verdict is expected, judgement.reason


def test_negative_zero_counts_as_bits_and_not_as_numbers():
    before, after = graph("y = Add(x, zero)", zero=np.float32(0)), graph("y = Identity(x)")
    assert verdict(before, after, BITWISE).verdict is Verdict.DIFFERENT
    assert verdict(before, after, REASSOCIATES).verdict is Verdict.EQUAL


def test_reassociated_product_is_equal_and_a_changed_weight_is_not():
    rng = np.random.default_rng(0)
    g, w = rng.standard_normal(4).astype(np.float32), rng.standard_normal((4, 4)).astype(np.float32)
    before = graph("h = Mul(x, g) y = MatMul(h, w)", g=g, w=w)
    folded = (g[:, None].astype(np.float64) * w).astype(np.float32)
    assert verdict(before, graph("y = MatMul(x, w)", w=folded), REASSOCIATES).verdict is Verdict.EQUAL
    assert verdict(before, graph("y = MatMul(x, w)", w=folded), BITWISE).verdict is Verdict.DIFFERENT
    folded[2, 3] *= 1.0001
    judgement = verdict(before, graph("y = MatMul(x, w)", w=folded), REASSOCIATES)
    assert judgement.verdict is Verdict.DIFFERENT
    assert "output 'y'" in judgement.reason
    assert judgement.worst.name == "y"


def test_ill_conditioned_rounding_is_told_from_error_by_the_noise_of_the_original():
    """x + 1e6 - 1e6 loses six digits; writing it in another order loses other ones."""
    million = np.float32(1e6)
    before = graph(
        "h = Add(x, million) k = Sub(h, million) y = Mul(k, two)", million=million, two=np.float32(2)
    )
    after = graph(
        "k = Mul(x, two) h = Add(k, twice) y = Sub(h, twice)", twice=np.float32(2e6), two=np.float32(2)
    )
    feeds = [Feed("one", {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)})]
    assert verdict(before, after, REASSOCIATES, feeds=feeds).verdict is Verdict.EQUAL
    wrong = graph(
        "k = Mul(x, two) h = Add(k, twice) y = Sub(h, twice)", twice=np.float32(2e6), two=np.float32(3)
    )
    assert verdict(before, wrong, REASSOCIATES, feeds=feeds).verdict is Verdict.DIFFERENT


_RMS = "s = Mul(h, h) m = ReduceMean<keepdims=1>(s, axis) e = Add(m, epsilon) r = Sqrt(e) y = Div(h, r)"


def _zeros_by_cancellation(order: str, off: float = 1.0) -> ir.Model:
    """What a shift in front of a linear leaves of zeros, 1,000 times as large behind an RMS norm."""
    random = np.random.default_rng(6)
    weight, shift = random.standard_normal((4, 4)), 8 * random.standard_normal(4)
    mixed, _ = np.linalg.qr(random.standard_normal((4, 4)))
    back = shift.astype(np.float32) @ weight.astype(np.float32) * off
    arrays = {"w": weight, "shift": shift, "back": back, "q": mixed, "v": mixed.T @ weight}
    arrays["epsilon"] = np.array(1e-6)
    linear = {"before": "p = MatMul(a, w)", "after": "b = MatMul(a, q) p = MatMul(b, v)"}[order]
    body = f"a = Sub(x, shift) {linear} h = Add(p, back) {_RMS}"
    given = {name: array.astype(np.float32) for name, array in arrays.items() if f"{name})" in body}
    return graph(body, axis=np.array([-1]), **given)


@pytest.mark.parametrize(("off", "expected"), [(1.0, Verdict.EQUAL), (1.0001, Verdict.DIFFERENT)])
def test_zeros_by_cancellation_behind_a_norm_may_lose_more_than_half_of_the_digits(off, expected):
    judgement = verdict(_zeros_by_cancellation("before"), _zeros_by_cancellation("after", off), REASSOCIATES)
    assert judgement.verdict is expected, judgement.reason


def test_the_optimiser_of_the_runtime_is_not_trusted_beyond_half_of_the_digits(monkeypatch):
    monkeypatch.setattr(
        Reference, "optimised", lambda reference, feed: {"y": reference.plain.run(feed.arrays)["y"] * 1.01}
    )
    right, wrong = graph("y = Mul(x, f)", f=np.float32(1)), graph("y = Mul(x, f)", f=np.float32(1.01))
    assert verdict(right, wrong, REASSOCIATES).verdict is Verdict.DIFFERENT


class Counting(InProcess):
    """A host that notes what it opens and how many of these are open at once."""

    def __init__(self):
        self.opened, self.alive, self.most = [], weakref.WeakSet(), 0

    def open(self, model, level, /):
        running = super().open(model, level)
        self.opened.append((model, level))
        self.alive.add(running)
        self.most = max(self.most, len(self.alive))
        return running


def test_each_model_is_opened_once_however_many_feeds_are_noisy():
    """The original twice, as it is and optimised; the rewritten model, too; and each shaken copy."""
    far, three = np.full(4, 1e4, np.float32), np.float32(3)
    before = graph("k = Sub(x, far) y = Mul(k, three)", far=far, three=three)
    after = graph("k = Mul(x, three) y = Sub(k, further)", further=3 * far, three=three)
    random = np.random.default_rng(0)
    feeds = [Feed(str(n), {"x": random.normal(1e4, 1, (8, 4)).astype(np.float32)}) for n in range(3)]
    host = Counting()
    assert verdict(before, after, REASSOCIATES, feeds=feeds, host=host).verdict is Verdict.EQUAL
    kinds = [("before" if model is before else "after" if model is after else "copy", level)
             for model, level in host.opened]  # fmt: skip
    assert sorted(kinds) == [
        ("after", "all"),
        ("after", "disabled"),
        ("before", "all"),
        ("before", "disabled"),
        *[("copy", "disabled")] * SHAKES,
    ]
    assert host.most <= 3


def test_dimension_mix_up_shows_at_sizes_that_differ():
    before = model_of(
        "g (float[n,m] x) => (float[?] y) { y = ReduceSum<keepdims = 0>(x, axis) }", axis=np.array([0])
    )
    after = model_of(
        "g (float[n,m] x) => (float[?] y) { y = ReduceSum<keepdims = 0>(x, axis) }", axis=np.array([1])
    )
    judgement = verdict(before, after, REASSOCIATES)
    assert judgement.verdict is Verdict.DIFFERENT
    assert "shape" in judgement.reason


def test_random_original_cannot_be_judged():
    model = graph("h = RandomNormalLike(x) y = Add(x, h)")
    judgement = verdict(model, model.clone(), BITWISE)
    assert judgement.verdict is Verdict.CANNOT_JUDGE
    assert "each time" in judgement.reason


def test_original_that_does_not_run_cannot_be_judged():
    unknown = model_of("g (float[n,4] x) => (float[n,4] y) { y = here.Nothing(x) }")
    judgement = verdict(unknown, unknown.clone(), BITWISE)
    assert judgement.verdict is Verdict.CANNOT_JUDGE
    assert "original does not load" in judgement.reason
    never = graph("r = Reshape(x, shape) y = Identity(x)", shape=np.array([7, 11, 13]))
    assert verdict(never, never.clone(), BITWISE).verdict is Verdict.CANNOT_JUDGE


def test_input_that_cannot_be_made_up_is_judged_on_given_feeds():
    before = model_of(
        "g (seq(float[2]) s) => (float[2] y) { i = Constant<value_int = 0>() y = SequenceAt(s, i) }"
    )
    assert verdict(before, before.clone(), BITWISE).verdict is Verdict.CANNOT_JUDGE
    feeds = [Feed("given", {"s": [np.ones(2, np.float32)]})]
    assert verdict(before, before.clone(), BITWISE, feeds=feeds).verdict is Verdict.EQUAL


def test_rewritten_model_that_does_not_run_is_different():
    judgement = verdict(
        graph("y = Neg(x)"), model_of("g (float[n,4] x) => (float[n,4] y) { y = here.No(x) }"), BITWISE
    )
    assert judgement.verdict is Verdict.DIFFERENT
    assert "does not run" in judgement.reason


def test_sizes_that_the_original_refuses_are_left_out():
    """A convolution of 5 needs more than the smallest sizes; 1 and 2 do not run."""
    weights = np.ones((1, 1, 5), np.float32)
    before = model_of("g (float[n,1,length] x) => (float[n,1,?] y) { y = Conv(x, w) }", w=weights)
    judgement = verdict(before, before.clone(), BITWISE)
    assert judgement.verdict is Verdict.EQUAL
    assert judgement.feeds > 0


def test_integers_are_exact_under_any_promise():
    before = model_of("g (float[n,4] x) => (int64[n,1] y) { y = ArgMax<axis = 1>(x) }")
    after = model_of("g (float[n,4] x) => (int64[n,1] y) { y = ArgMin<axis = 1>(x) }")
    judgement = verdict(before, after, REASSOCIATES)
    assert judgement.verdict is Verdict.DIFFERENT
    assert "integers" in judgement.reason


def test_half_precision_inside_is_given_half_precision():
    """The output is float32, the work float16: its rounding is what counts."""
    half = "h = Cast<to = 10>(x) s = Mul(h, three) k = Mul(s, third) y = Cast<to = 1>(k)"
    constants = {"three": np.float16(3), "third": np.float16(1 / 3)}
    before = graph(half, **constants)
    after = graph("h = Cast<to = 10>(x) y = Cast<to = 1>(h)")
    feeds = [Feed("one", {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)})]
    assert verdict(before, after, REASSOCIATES, feeds=feeds).verdict is Verdict.EQUAL


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(cosine_min=0.999, sqnr_db=30), Verdict.EQUAL),
        (Budget(cosine_min=0.9999999), Verdict.DIFFERENT),
        (Budget(sqnr_db=60), Verdict.DIFFERENT),
        (None, Verdict.CANNOT_JUDGE),
    ],
)
def test_lossy_is_held_to_its_budget(budget, expected):
    step = np.float32(0.05)
    before = graph("y = Identity(x)")
    after = graph("h = Div(x, step) k = Round(h) y = Mul(k, step)", step=step)
    feeds = [Feed("one", {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)})]
    assert verdict(before, after, LOSSY, feeds=feeds, budget=budget).verdict is expected


def test_lossy_is_not_judged_on_made_up_feeds():
    model = graph("y = Neg(x)")
    assert verdict(model, model.clone(), LOSSY, budget=Budget()).verdict is Verdict.CANNOT_JUDGE


class Failing(InProcess):
    """A host in whose hands the rewritten model fails."""

    def __init__(self, model, slug, level="disabled"):
        self.model, self.slug, self.level = model, slug, level

    def open(self, model, level, /):
        if model is self.model and level == self.level:
            raise BackendError("it failed", slug=self.slug)
        return super().open(model, level)


@pytest.mark.parametrize(
    ("slug", "expected"),
    [
        ("crashed", Verdict.DIFFERENT),
        ("refused", Verdict.DIFFERENT),
        ("timeout", Verdict.CANNOT_JUDGE),
        ("out-of-memory", Verdict.CANNOT_JUDGE),
    ],
)
def test_failures_of_the_rewritten_model(slug, expected):
    before, after = graph("y = Neg(x)"), graph("y = Neg(x)")
    assert judge(before, after, BITWISE, settings=HERE, host=Failing(after, slug)).verdict is expected
    assert (
        judge(before, after, BITWISE, settings=HERE, host=Failing(before, slug)).verdict
        is Verdict.CANNOT_JUDGE
    )


def test_result_must_survive_the_optimiser_of_the_runtime():
    before, after = graph("y = Neg(x)"), graph("y = Neg(x)")
    host = Failing(after, "refused", "all")
    judgement = judge(before, after, BITWISE, settings=HERE, host=host)
    assert judgement.verdict is Verdict.DIFFERENT
    assert "optimiser refuses" in judgement.reason
    alone = OracleSettings(isolated=False, optimised=False)
    assert judge(before, after, BITWISE, settings=alone, host=host).verdict is Verdict.EQUAL


def test_worker_process_gives_the_same_verdict():
    settings = OracleSettings(seeds=1, sizes=1)
    assert (
        judge(graph("y = Neg(x)"), graph("y = Neg(x)"), BITWISE, settings=settings).verdict is Verdict.EQUAL
    )
    assert (
        judge(graph("y = Neg(x)"), graph("y = Abs(x)"), BITWISE, settings=settings).verdict
        is Verdict.DIFFERENT
    )


def _through_large_numbers(order: str) -> ir.Model:
    """Token ids, states in the hundreds, and an output of size one that their rounding moves."""
    random = np.random.default_rng(0)
    large = 3e2 * random.standard_normal(32).astype(np.float32)
    bodies = {
        "before": "s = Mul(e, g) m = MatMul(s, w)",
        "after": "m = MatMul(e, v)",
        "wrong": "m = MatMul(e, u)",
    }
    w = random.standard_normal((32, 32)).astype(np.float32)
    v = (large[:, None].astype(np.float64) * w).astype(np.float32)
    u = v.copy()
    u[3] *= 1.01
    arrays = {"g": large, "w": w, "v": v, "u": u, "t": random.standard_normal((9, 32)).astype(np.float32)}
    names = [name for name in arrays if name == "t" or f" {name})" in bodies[order]]
    return model_of(
        f"g (int64[n] i) => (float[n,32] y) {{ e = Gather(t, i) {bodies[order]} y = Sin(m) }}",
        **{name: arrays[name] for name in names},
    )


def test_rounding_inside_is_seen_where_token_ids_cannot_be_moved():
    before = _through_large_numbers("before")
    for after, verdict in (("after", Verdict.EQUAL), ("wrong", Verdict.DIFFERENT)):
        found = judge(before, _through_large_numbers(after), Contract.REASSOCIATES, settings=HERE)
        assert found.verdict is verdict, found.reason


def test_half_precision_is_not_held_to_bits_that_the_runtime_makes_up():
    """It computes both in float32; without the Identity it does not round the product in between."""
    body = "g (float16[n,64] x) => (float16[n,64] y) {{ m = LeakyRelu(x) {} y = Erf({}) }}"
    before = model_of(body.format("i = Identity(m)", "i"))
    for last, verdict in (("m", Verdict.EQUAL), ("x", Verdict.DIFFERENT)):
        found = judge(before, model_of(body.format("", last)), Contract.BITWISE, settings=HERE)
        assert found.verdict is verdict, found.reason

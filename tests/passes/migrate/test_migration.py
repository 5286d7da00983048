"""Who reads a norm decides what happens: single spots, where a mistake would change a neighbour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.contract import Pass
from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.pipeline import PassResult, apply_pass
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics
from tests.graphs import check, model_of, ops_of, outputs_of
from tests.passes.migrate.families import arrays_of, made_by, norms_of

C = 6
NORM = "n = LayerNormalization(x, gamma, beta)"


def constants(dtype: type = np.float64, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {name: random.normal(size=(C, C)) for name in ("w", "v", "u")}
    made |= {name: random.normal(size=C) for name in ("b", "beta")}
    made |= {"gamma": random.uniform(2.0, 9.0, C), "eps": np.array(1e-5)}
    return {name: array.astype(dtype) for name, array in made.items()} | {"last": np.array([-1])}


def built(
    body: str, outputs: str = "double[N,6] y", inputs: str = "double[N,6] x", **arrays: np.ndarray
) -> ir.Model:
    """A model in double precision, where rounding cannot hide a mistake."""
    given = {**constants(), **arrays}
    used = {name: array for name, array in given.items() if f"{name})" in body or f"{name}," in body}
    return model_of(f"g ({inputs}) => ({outputs}) {{ {body} }}", **used)


def seen(seed: int = 0, name: str = "n") -> Statistics:
    random = np.random.default_rng(seed)
    centre, reach = random.normal(size=C), random.uniform(0.1, 30.0, C)
    extremes = ChannelExtremes(centre - reach, centre + reach)
    return Statistics({name: TensorStatistics(1, channel=extremes)})


def migrated(model: ir.Model, a_pass: Pass, statistics: Statistics | None = None) -> PassResult:
    """What the pass makes of the model, which must compute the same numbers."""
    result = apply_pass(model, a_pass, statistics or seen())
    check(result.model)
    random = np.random.default_rng(9)
    feeds = {
        value.name: np.asarray(True)
        if value.dtype == ir.DataType.BOOL
        else random.normal(size=(5, C)).astype(value.dtype.numpy())
        for value in model.graph.inputs
    }
    for flag in (True, False):
        feeds |= {"c": np.asarray(flag)} if "c" in feeds else {}
        old, new = outputs_of(model, feeds), outputs_of(result.model, feeds)
        for name, array in old.items():
            np.testing.assert_allclose(new[name], array, rtol=1e-11, atol=1e-11)
    return result


def reasons(result: PassResult) -> str:
    return "; ".join(reject.reason for reject in result.rejects)


BOTH = pytest.mark.parametrize("a_pass", [FoldGamma(), ShiftScale()], ids=lambda each: each.name)

FIRES = {
    "a linear": f"{NORM} y = MatMul(n, w)",
    "a linear with bias": f"{NORM} m = MatMul(n, w) y = Add(b, m)",
    "a Gemm": f"{NORM} y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(n, w, b)",
    "three linears": (
        f"{NORM} q = MatMul(n, w) k = MatMul(n, v) l = Gemm(n, u, b) s = Add(q, k) y = Mul(s, l)"
    ),
    "a linear behind Identity": f"{NORM} i = Identity(n) y = MatMul(i, w)",
    "a residual and its branch": (
        f"{NORM} m = MatMul(n, w) t = Tanh(m) p = MatMul(t, v) a = Add(p, b) y = Add(a, n)"
    ),
    "a residual beside its own linear": f"{NORM} m = MatMul(n, w) a = Add(m, b) y = Add(n, a)",
    "a residual whose branch is read twice": (
        f"{NORM} m = MatMul(n, w) t = Tanh(m) a = MatMul(t, v) s = Add(n, a) y = Add(s, a)"
    ),
    "two residuals": (
        f"{NORM} m = MatMul(n, w) t = Tanh(m) p = MatMul(t, v) q = MatMul(t, u) r = Add(n, p) s = Add(q, n) "
        "y = Mul(r, s)"
    ),
    "two residuals, one without a branch": (
        f"{NORM} m = MatMul(n, w) t = Tanh(m) p = MatMul(t, v) r = Add(n, p) s = Add(n, x) y = Mul(r, s)"
    ),
    "an odd reader": f"{NORM} m = MatMul(n, w) t = Sigmoid(n) y = Mul(m, t)",
    "a norm behind a norm": (
        f"{NORM} m = MatMul(n, w) k = LayerNormalization(m, gamma, beta) l = MatMul(k, v) y = Add(l, n)"
    ),
    "a spelled-out norm without a shift": (
        "e = ReduceMean(x, last) d = Sub(x, e) q = Mul(d, d) s = ReduceMean(q, last) r = Add(s, eps) "
        "f = Sqrt(r) g = Div(d, f) n = Mul(g, gamma) y = MatMul(n, w)"
    ),
}


@BOTH
@pytest.mark.parametrize("body", FIRES.values(), ids=FIRES)
def test_every_reader_gets_its_numbers(a_pass: Pass, body: str) -> None:
    assert migrated(built(body), a_pass).modified


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FIRES)), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_any_shift_and_scale_is_exact(name: str, seed: int, shift: bool, scale: bool) -> None:
    migrated(built(FIRES[name], **constants(seed=seed)), ShiftScale(shift=shift, scale=scale), seen(seed))


ADDED = {"a residual and its branch": 0, "two residuals": 0, "a residual beside its own linear": 1}
ADDED |= {"two residuals, one without a branch": 1, "a residual whose branch is read twice": 1}


@pytest.mark.parametrize("name", ADDED)
def test_a_shift_hides_in_the_branch_beside_it_or_is_added_back(name: str) -> None:
    result = migrated(built(FIRES[name]), ShiftScale())
    inserted = made_by(result.model, ShiftScale)
    behind_products = sum(
        node.op_type == "Add" and node.inputs[0].producer().op_type in ("MatMul", "Gemm")
        for node in result.model.graph
        if node.metadata_props.get("onnxq.pass") == "shift-scale"
    )
    assert inserted.count("Mul") == 1
    assert inserted.count("Add") - behind_products == ADDED[name]


def test_a_shift_without_scale_needs_no_mul() -> None:
    result = migrated(built(FIRES["a residual and its branch"]), ShiftScale(scale=False))
    assert "Mul" not in made_by(result.model, ShiftScale)


GIVEN = "double[N,6] y, double[N,6] n"


@BOTH
@pytest.mark.parametrize("body", FIRES.values(), ids=FIRES)
def test_an_output_gets_its_numbers_beside_any_reader(a_pass: Pass, body: str) -> None:
    result = migrated(built(body, GIVEN), a_pass)
    assert result.modified
    assert [value.name for value in result.model.graph.outputs] == ["y", "n"]


def test_an_output_and_a_residual_share_what_restores_them() -> None:
    """The shift of the residual cannot hide in its branch then: the output wants it."""
    result = migrated(built(FIRES["a residual and its branch"], GIVEN), ShiftScale())
    made = {node.op_type: node for node in result.model.graph if node.name.startswith("n_")}
    assert sorted(made) == ["Add", "Mul"]
    assert made["Add"].outputs[0].is_graph_output()
    assert [node.op_type for node in made["Add"].outputs[0].consumers()] == ["Add"]


def test_an_output_whose_shift_alone_moves_costs_an_add() -> None:
    result = migrated(built(f"{NORM} y = Gemm(n, w, b)", GIVEN), ShiftScale(scale=False))
    assert made_by(result.model, ShiftScale) == ["Add"]


@BOTH
def test_an_output_holds_where_no_node_may_be_inserted(a_pass: Pass) -> None:
    model = built(f"{NORM} y = MatMul(n, w)", GIVEN)
    result = apply_pass(model, replace(a_pass, insert_nodes=False), seen())
    assert not result.modified
    assert "it is an output of its graph, and nodes may not be inserted" in reasons(result)


@BOTH
def test_the_output_of_a_branch_gets_its_numbers(a_pass: Pass) -> None:
    body = (
        "y, o = If(c) <then_branch = t () => (double[N,6] p, double[N,6] n) "
        f"{{ {NORM} p = MatMul(n, w) }}, "
        "else_branch = e () => (double[N,6] q, double[N,6] r) { q = MatMul(x, v) r = Identity(x) }>"
    )
    result = migrated(built(body, "double[N,6] y, double[N,6] o", "double[N,6] x, bool c"), a_pass)
    assert result.modified
    assert "Mul" in made_by(result.model, a_pass)


@BOTH
def test_a_weight_that_two_layers_read_is_cloned(a_pass: Pass) -> None:
    body = f"{NORM} m = MatMul(n, w) o = MatMul(x, w) y = Add(m, o)"
    model = built(body, "double[N,6] y, double[N,6] o")
    result = migrated(model, a_pass)
    assert result.modified
    np.testing.assert_array_equal(arrays_of(result.model)["w"], constants()["w"])


@BOTH
def test_a_tied_table_is_parted_from_its_head(a_pass: Pass) -> None:
    body = f"e = Gather(w, i) x = Add(e, v) {NORM} t = Transpose<perm = [1, 0]>(w) y = MatMul(n, t)"
    model = built(body, inputs="int64[6] i")
    result = apply_pass(model, a_pass, seen())
    assert result.modified
    feeds = {"i": np.arange(6)[::-1].copy()}
    expected = outputs_of(model, feeds)["y"]
    np.testing.assert_allclose(outputs_of(result.model, feeds)["y"], expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(arrays_of(result.model)["w"], constants()["w"])


@BOTH
def test_norms_that_share_gamma_are_parted(a_pass: Pass) -> None:
    body = f"{NORM} m = MatMul(n, w) k = LayerNormalization(x, gamma, beta) t = Tanh(k) y = Add(m, t)"
    result = migrated(built(body), a_pass)
    assert result.modified
    kept = [norm for norm in norms_of(result.model) if norm.output.name == "k"]
    np.testing.assert_array_equal(kept[0].gamma, constants()["gamma"])


@BOTH
def test_a_linear_inside_a_branch_absorbs_too(a_pass: Pass) -> None:
    body = (
        f"{NORM} y = If(c) <then_branch = t () => (double[N,6] p) {{ p = MatMul(n, w) }}, "
        "else_branch = e () => (double[N,6] q) { m = MatMul(n, v) q = Add(m, b) }>"
    )
    assert migrated(built(body, inputs="double[N,6] x, bool c"), a_pass).modified


def _halves(body: str) -> ir.Model:
    arrays = constants(np.float16)
    arrays["w"] = np.full((C, C), 3e4, np.float16)
    return built(body, "float16[N,6] y", "float16[N,6] x", **arrays)


REFUSED: dict[str, tuple[Callable[[], ir.Model], str]] = {
    "no linear": (lambda: built(f"{NORM} y = Tanh(n)"), "no linear reads it"),
    "a weight on the left": (
        lambda: built(f"{NORM} t = Transpose(n) y = MatMul(w, t)"),
        "no linear reads it",
    ),
    "a weight of three": (
        lambda: built(f"{NORM} m = MatMul(n, w) o = MatMul(x, w) k = MatMul(o, w) y = Add(m, k)"),
        "no linear reads it",
    ),
    "a weight that is an output": (
        lambda: built(f"{NORM} y = MatMul(n, w)", "double[N,6] y, double[6,6] w"),
        "no linear reads it",
    ),
    "one Reshape for two kinds": (
        lambda: built(f"{NORM} i = Identity(n) m = MatMul(i, w) t = Tanh(i) y = Add(m, t)"),
        "passes it on to linears and to others",
    ),
    "a subgraph": (
        lambda: built(
            f"{NORM} m = MatMul(n, w) y = If(c) <then_branch = t () => (double[N,6] p) {{ p = Tanh(n) }}, "
            "else_branch = e () => (double[N,6] q) { q = Identity(m) }>",
            inputs="double[N,6] x, bool c",
        ),
        "a subgraph reads it",
    ),
    "no room in 16 bits": (lambda: _halves(f"{NORM} y = MatMul(n, w)"), "overflows float16"),
    "a computed gamma": (
        lambda: built("s = Abs(g) n = LayerNormalization(x, s, beta) y = MatMul(n, w)",
                      inputs="double[N,6] x, double[6] g"),
        "computed",
    ),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compensated_is_refused_in_words(a_pass: Pass, case: str) -> None:
    make, told = REFUSED[case]
    model = make()
    result = apply_pass(model, a_pass, seen())
    assert not result.modified
    assert told in reasons(result)


def test_an_rms_norm_is_scaled_and_never_shifted() -> None:
    body = "n = RMSNormalization(x, gamma) y = MatMul(n, w)"
    model = built(body)
    model.opset_imports[""] = 23
    result = migrated(model, ShiftScale())
    assert result.modified
    assert ops_of(result.model) == ["RMSNormalization", "MatMul"]


TOWER = "g = Relu(x) m = MatMul(g, w) y = Add(m, b)"


def test_insert_scale_asks_for_a_gain() -> None:
    assert migrated(built(TOWER), InsertScale(gain=1.0), seen(name="g")).modified
    held = migrated(built(TOWER), InsertScale(gain=1e9), seen(name="g"))
    assert "times only" in reasons(held)
    barred = migrated(built(TOWER), InsertScale(insert_nodes=False), seen(name="g"))
    assert "only a new node" in reasons(barred)


def test_insert_scale_leaves_other_readers_the_old_numbers() -> None:
    body = "g = Relu(x) m = MatMul(g, w) k = Gemm(g, v, b) s = Add(m, k) y = Add(s, g)"
    result = migrated(built(body), InsertScale(gain=0.0), seen(name="g"))
    assert made_by(result.model, InsertScale) == ["Mul"], "one for both linears"


@pytest.mark.parametrize(
    "factors",
    [
        "f = MatMul(x, v) t = Tanh(x) g = Mul(f, t)",
        "f = MatMul(x, v) a = Add(f, b) t = Tanh(x) g = Mul(t, a)",
    ],
)
def test_a_factor_of_the_activation_takes_the_scale(factors: str) -> None:
    result = migrated(built(f"{factors} y = MatMul(g, w)"), InsertScale(gain=0.0), seen(name="g"))
    assert result.modified
    assert made_by(result.model, InsertScale) == []


@pytest.mark.parametrize(
    "body",
    [
        "f = MatMul(x, v) t = Tanh(f) g = Mul(f, t) y = MatMul(g, w)",
        "f = MatMul(x, v) t = Tanh(x) g = Mul(f, t) m = MatMul(g, w) y = Add(m, g)",
        "f = MatMul(x, v) t = Tanh(x) g = Mul(f, t) m = MatMul(g, w) y = Add(m, f)",
    ],
    ids=["factor read twice", "product read elsewhere", "factor read elsewhere"],
)
def test_a_factor_that_others_read_does_not(body: str) -> None:
    result = migrated(built(body), InsertScale(gain=0.0), seen(name="g"))
    assert made_by(result.model, InsertScale) == ["Mul"]


GATED = {
    "gate first": "g, p = Split<axis = -1>(f, sizes)",
    "factor first": "p, g = Split<axis = -1>(f, sizes)",
    "halves without sizes": "g, p = Split<axis = -1, num_outputs = 2>(f)",
    "by an axis that is counted": "g, p = Split<axis = 1>(f, sizes)",
    "slices": "g = Slice(f, zero, six, last) p = Slice(f, six, end, last)",
    "slices counted from the end": "g = Slice(f, minus, end, last) p = Slice(f, zero, six, last)",
    "with a bias": "h = Add(f, both) g, p = Split<axis = -1>(h, sizes)",
}
"""How one linear gives a gate and the factor that it is multiplied with."""


def gated(cut: str, tail: str = "y = MatMul(r, w)", outputs: str = "double[N,6] y") -> ir.Model:
    """``(silu(g) * p) w`` with g and p from one linear."""
    random = np.random.default_rng(5)
    arrays = {"wide": random.normal(size=(C, 2 * C)), "both": random.normal(size=2 * C)}
    arrays |= {"sizes": np.array([C, C]), "zero": np.array([0]), "six": np.array([C]), "two": np.array([2])}
    arrays |= {"minus": np.array([-C]), "end": np.array([2**63 - 1])}
    body = f"f = MatMul(x, wide) {cut} c = Sigmoid(g) a = Mul(g, c) r = Mul(a, p) {tail}"
    return built(body, outputs, **arrays)


@pytest.mark.parametrize("cut", GATED.values(), ids=GATED)
def test_a_factor_from_one_linear_with_its_gate_takes_the_scale(cut: str) -> None:
    model = gated(cut)
    result = migrated(model, InsertScale(gain=0.0, free_gain=0.0), seen(name="r"))
    assert result.modified
    assert made_by(result.model, InsertScale) == []
    old, new = arrays_of(model)["wide"], arrays_of(result.model)["wide_1"]
    moved = ~np.isclose(old, new, rtol=1e-12, atol=0).all(axis=0)
    factor_first = cut.startswith("p") or "minus" in cut
    assert moved[:C].any() == factor_first
    assert moved[C:].any() != factor_first, "the columns of the gate stay"


@pytest.mark.parametrize(
    ("cut", "tail", "outputs"),
    [
        (GATED["gate first"], "m = MatMul(r, w) y = Add(m, p)", "double[N,6] y"),
        (GATED["gate first"], "y = MatMul(r, w) o = Tanh(f)", "double[N,6] y, double[N,12] o"),
        (GATED["gate first"], "y = MatMul(r, w)", "double[N,6] y, double[N,12] f"),
        (GATED["gate first"], "y = MatMul(r, w)", "double[N,6] y, double[N,6] p"),
        (GATED["slices"] + " k = Slice(f, two, end, last)", "y = MatMul(r, w) o = Tanh(k)",
         "double[N,6] y, double[N,10] o"),
    ],
    ids=["the factor", "the whole", "the whole, as output", "the factor, as output", "more columns"],
)  # fmt: skip
def test_a_factor_that_is_read_elsewhere_too_costs_a_mul(cut: str, tail: str, outputs: str) -> None:
    model = gated(cut, tail, outputs)
    result = migrated(model, InsertScale(gain=0.0), seen(name="r"))
    assert made_by(result.model, InsertScale) == ["Mul"]

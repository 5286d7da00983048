"""Every spelling of layer norm and RMS norm is read as the same numbers, and takes new ones."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import Edit, Reject
from onnxq.ir.norm import Norm, find_norm, rewrite_norm
from onnxq.ir.walk import nodes

RANDOM = np.random.default_rng(11)
C = 4
X = (3 * RANDOM.normal(size=(2, 5, C)) + 1).astype(np.float32)
G = RANDOM.uniform(0.5, 2, C).astype(np.float32)
B = RANDOM.normal(size=C).astype(np.float32)
EPSILON = np.float32(1e-2)
TWO, HALF = np.float32(2), np.float32(0.5)

# The pieces of a spelled-out norm; each variant of one piece is tried with the first variant of the others.
MEAN = "m = ReduceMean<axes = [-1]>(x) "
CENTRE = MEAN + "d = Sub(x, m) "
SQUARE = "q = Pow(d, two) "
MOMENT = "v = ReduceMean<axes = [-1]>(q) ve = Add(v, eps) "
ROOT = "s = Sqrt(ve) n = Div(d, s) "
LAYER = CENTRE + SQUARE + MOMENT + ROOT
RMS = "q = Pow(x, two) " + MOMENT + "s = Sqrt(ve) n = Div(x, s) "
BASE = {"two": TWO, "eps": EPSILON}
AFFINE = "g1 = Mul(n, g) y = Add(g1, b)"
GB = {"g": G, "b": B}
OPERATOR = "y = LayerNormalization<axis = -1, epsilon = 0.01>"

CASTS = (
    "xf = Cast<to = 1>(x) m = ReduceMean<axes = [-1]>(xf) d = Sub(xf, m) q = Pow(d, two) "
    "v = ReduceMean<axes = [-1]>(q) ve = Add(v, eps) s = Sqrt(ve) n = Div(d, s) "
)
HALF_TYPE = {"inputs": "float16[N,T,4] x", "outputs": "float16[N,T,4] y"}

LAYERS: dict[str, tuple[str, dict]] = {
    "operator": (f"{OPERATOR}(x, g, b)", GB),
    "operator, last axis counted from the front": (
        "y = LayerNormalization<axis = 2, epsilon = 0.01>(x, g, b)",
        GB,
    ),
    "operator without shift": (f"{OPERATOR}(x, g)", {"g": G}),
    "operator, shift behind it": ("n = " + OPERATOR[4:] + "(x, g) y = Add(b, n)", GB),
    "torch": (LAYER + AFFINE, BASE | GB),
    "operands the other way round": (
        CENTRE
        + SQUARE
        + "v = ReduceMean<axes = [-1]>(q) ve = Add(eps, v) "
        + ROOT
        + "g1 = Mul(g, n) y = Add(b, g1)",
        BASE | GB,
    ),
    "axis from the front": (LAYER.replace("[-1]", "[2]") + AFFINE, BASE | GB),
    "square by product": (CENTRE + "q = Mul(d, d) " + MOMENT + ROOT + AFFINE, {"eps": EPSILON} | GB),
    "centre computed twice": (
        CENTRE + "d2 = Sub(x, m) q = Pow(d2, two) " + MOMENT + ROOT + AFFINE,
        BASE | GB,
    ),
    "mean and centre computed twice": (
        CENTRE + "m2 = ReduceMean<axes = [-1]>(x) d2 = Sub(x, m2) q = Mul(d2, d) " + MOMENT + ROOT + AFFINE,
        BASE | GB,
    ),
    "root by power": (
        CENTRE + SQUARE + MOMENT + "s = Pow(ve, half) n = Div(d, s) " + AFFINE,
        BASE | GB | {"half": HALF},
    ),
    "inverse root by power": (
        CENTRE + SQUARE + MOMENT + "s = Pow(ve, half) n = Mul(s, d) " + AFFINE,
        BASE | GB | {"half": -HALF},
    ),
    "reciprocal": (
        CENTRE + SQUARE + MOMENT + "s = Sqrt(ve) r = Reciprocal(s) n = Mul(d, r) " + AFFINE,
        BASE | GB,
    ),
    "one by root": (
        CENTRE + SQUARE + MOMENT + "s = Sqrt(ve) r = Div(one, s) n = Mul(r, d) " + AFFINE,
        BASE | GB | {"one": np.float32(1)},
    ),
    "without shift": (LAYER + "y = Mul(n, g)", BASE | {"g": G}),
    "without scale": (LAYER + "y = Add(n, b)", BASE | {"b": B}),
    "without either": (LAYER.replace("n = Div", "y = Div"), BASE),
    "constants as rows": (LAYER + AFFINE, BASE | {"g": G[None, None], "b": B[None, None]}),
    "epsilon as a row": (LAYER + AFFINE, {"two": TWO[None], "eps": EPSILON[None]} | GB),
}

RMS_NORMS: dict[str, tuple[str, dict]] = {
    "operator of onnxruntime": (
        "y = SimplifiedLayerNormalization<axis = -1, epsilon = 0.01>(x, g)",
        {"g": G},
    ),
    "division": (RMS + "y = Mul(n, g)", BASE | {"g": G}),
    "scale first": (RMS + "y = Mul(g, n)", BASE | {"g": G}),
    "reciprocal": (
        "q = Pow(x, two) " + MOMENT + "s = Sqrt(ve) r = Reciprocal(s) n = Mul(x, r) y = Mul(g, n)",
        BASE | {"g": G},
    ),
    "square by product": (
        "q = Mul(x, x) " + MOMENT + "s = Sqrt(ve) n = Div(x, s) y = Mul(n, g)",
        {"eps": EPSILON, "g": G},
    ),
    "inverse root by power": (
        "q = Pow(x, two) " + MOMENT + "r = Pow(ve, half) n = Mul(x, r) y = Mul(n, g)",
        BASE | {"g": G, "half": -HALF},
    ),
    "without scale": (RMS.replace("n = Div", "y = Div"), BASE),
    "with a shift behind": (RMS + AFFINE, BASE | GB),
}

MIXED: dict[str, tuple[str, dict]] = {
    "layer, scale in half": (
        CASTS + "h = Cast<to = 10>(n) g1 = Mul(h, g) y = Add(g1, b)",
        {"g": np.float16, "b": np.float16},
    ),
    "layer, scale in float": (
        CASTS + "g1 = Mul(n, g) y1 = Add(g1, b) y = Cast<to = 10>(y1)",
        {"g": np.float32, "b": np.float32},
    ),
    "layer, cast between scale and shift": (
        CASTS + "g1 = Mul(n, g) h = Cast<to = 10>(g1) y = Add(h, b)",
        {"g": np.float32, "b": np.float16},
    ),
    "rms, scale in half": (
        "xf = Cast<to = 1>(x) q = Pow(xf, two) "
        + MOMENT
        + "s = Sqrt(ve) r = Reciprocal(s) n = Mul(xf, r) h = Cast<to = 10>(n) y = Mul(g, h)",
        {"g": np.float16},
    ),
    "rms, only the square in float": (
        "xf = Cast<to = 1>(x) q = Pow(xf, two) "
        + MOMENT
        + "s = Sqrt(ve) r = Reciprocal(s) rh = Cast<to = 10>(r) n = Mul(x, rh) y = Mul(g, n)",
        {"g": np.float16},
    ),
}


def normal(x: np.ndarray, kind: str, gamma: np.ndarray, beta: np.ndarray | None) -> np.ndarray:
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return normed * gamma + (0 if beta is None else beta)


def found_in(model: ir.Model) -> list[Norm | Reject]:
    return [found for node in nodes(model) if (found := find_norm(node)) is not None]


def only_norm(model: ir.Model) -> Norm:
    (found,) = found_in(model)
    assert isinstance(found, Norm), found
    return found


CASES = [pytest.param("layer", *LAYERS[name], id=f"layer {name}") for name in LAYERS]
CASES += [pytest.param("rms", *RMS_NORMS[name], id=f"rms {name}") for name in RMS_NORMS]


@pytest.mark.parametrize(("kind", "body", "constants"), CASES)
def test_reads_every_spelling(kind, body, constants, build, run):
    model = build(body, **constants)
    norm = only_norm(model)
    assert (norm.kind, norm.channels, norm.input.name, norm.output.name) == (kind, C, "x", "y")
    assert norm.epsilon == pytest.approx(EPSILON) and norm.nodes[-1] is norm.output.producer()
    np.testing.assert_array_equal(norm.gamma, G if "g" in constants else np.ones(C))
    assert (norm.beta is not None) == ("b" in constants)
    np.testing.assert_allclose(run(model, x=X)[0], normal(X, kind, norm.gamma, norm.beta), atol=1e-5)


@pytest.mark.parametrize(("kind", "body", "constants"), CASES)
def test_same_numbers_leave_the_output_alone(kind, body, constants, build, run):
    model = build(body, **constants)
    before, norm = run(model, x=X)[0], only_norm(model)
    rewrite_norm(norm, Edit(model, "test"), norm.gamma, norm.beta)
    np.testing.assert_array_equal(run(model, x=X)[0], before)


@pytest.mark.parametrize("beta", [None, B - 2], ids=["no shift", "shift"])
@pytest.mark.parametrize(("kind", "body", "constants"), CASES)
def test_takes_new_numbers(kind, body, constants, beta, build, run):
    model = build(body, **constants)
    rewrite_norm(only_norm(model), Edit(model, "test"), G * 3, beta, may_add=True)
    np.testing.assert_allclose(run(model, x=X)[0], normal(X, kind, G * 3, beta), atol=1e-5)
    again = only_norm(model)
    np.testing.assert_allclose(again.gamma, G * 3)
    np.testing.assert_allclose(0 if again.beta is None else again.beta, 0 if beta is None else beta)
    assert (again.input.name, again.output.name) == ("x", "y")


@pytest.mark.parametrize("name", MIXED)
def test_mixed_precision(name, build, run):
    body, types = MIXED[name]
    given = {key: (G if key == "g" else B).astype(dtype) for key, dtype in types.items()}
    model = build(body, **HALF_TYPE, **BASE, **given)
    norm = only_norm(model)
    expected = normal(X, norm.kind, G, B if "b" in types else None)
    x = X.astype(np.float16)
    np.testing.assert_allclose(run(model, x=x)[0], expected, rtol=5e-3, atol=1e-2)
    rewrite_norm(norm, Edit(model, "test"), norm.gamma * 2, norm.beta)
    again = only_norm(model)
    assert again.dtype == norm.dtype
    np.testing.assert_allclose(again.gamma, norm.gamma * 2)
    doubled = normal(X, norm.kind, 2 * G, B if "b" in types else None)
    np.testing.assert_allclose(run(model, x=x)[0], doubled, rtol=5e-3, atol=2e-2)


def test_axes_as_an_input_since_opset_18(build):
    body = (LAYER + AFFINE).replace("<axes = [-1]>(x)", "(x, a)").replace("<axes = [-1]>(q)", "(q, a)")
    norm = only_norm(build(body, opset=18, a=np.array([-1]), **BASE, **GB))
    assert (norm.kind, norm.channels) == ("layer", C)


def test_the_operator_of_opset_23(build):
    norm = only_norm(build("y = RMSNormalization<epsilon = 0.01>(x, g)", opset=23, g=G))
    assert (norm.kind, norm.channels) == ("rms", C)
    assert norm.epsilon == pytest.approx(EPSILON)


def test_two_norms_with_one_core(build):
    """Parallel branches that normalise the same value, the common part computed once."""
    model = build(
        LAYER + "g1 = Mul(n, g) p = Add(g1, b) g2 = Mul(n, h) q2 = Add(g2, b) y = Mul(p, q2)",
        **BASE,
        **GB,
        h=2 * G,
    )
    first, second = found_in(model)
    assert (first.output.name, second.output.name) == ("p", "q2")
    np.testing.assert_array_equal(second.gamma, 2 * G)


def test_a_core_read_elsewhere_is_a_norm_of_its_own(build):
    model = build(LAYER + "p = Mul(n, g) y = Add(p, n)", **BASE, g=G)
    assert [norm.output.name for norm in found_in(model)] == ["n", "p"]


def test_a_new_scale_and_shift_reach_every_reader(build, run):
    model = build(LAYER + "p = Relu(n) y = Sub(p, n)", outputs="float[N,T,4] y, float[N,T,4] n", **BASE)
    rewrite_norm(only_norm(model), Edit(model, "test"), G, B)
    y, n = run(model, x=X)
    expected = normal(X, "layer", G, B)
    np.testing.assert_allclose(n, expected, atol=1e-5)
    np.testing.assert_allclose(y, np.maximum(expected, 0) - expected, atol=1e-5)


def test_a_shared_scale_is_cloned(build, run):
    model = build(f"n = {OPERATOR[4:]}(x, g, b) y = {OPERATOR[4:]}(n, g, b)", **GB)
    first, _ = found_in(model)
    rewrite_norm(first, Edit(model, "test"), 2 * G, 3 * B)
    expected = normal(normal(X, "layer", 2 * G, 3 * B), "layer", G, B)
    np.testing.assert_allclose(run(model, x=X)[0], expected, atol=1e-5)
    np.testing.assert_array_equal(found_in(model)[1].gamma, G)


def test_an_rms_norm_gets_no_shift_unasked(build):
    model = build(RMS + "y = Mul(n, g)", **BASE, g=G)
    edit = Edit(model, "test")
    with pytest.raises(ValueError, match="no place for a shift"):
        rewrite_norm(only_norm(model), edit, G, B)
    assert edit.changes == []


def test_an_overflow_is_refused_before_anything_changes(build):
    model = build(f"{OPERATOR}(x, g, b)", **HALF_TYPE, g=G.astype(np.float16), b=B.astype(np.float16))
    edit = Edit(model, "test")
    with pytest.raises(ValueError, match="do not fit into float16"):
        rewrite_norm(only_norm(model), edit, G, B * 1e6)
    assert edit.changes == []


@pytest.mark.parametrize(
    ("body", "constants", "reason"),
    [
        ("y = LayerNormalization<axis = 1>(x, g, b)", GB, "last axis"),
        ("y = LayerNormalization(x, x)", {}, "computed"),
        ("y = LayerNormalization(x, g)", {"g": np.ones((1,), np.float32)}, "per channel"),
        ((LAYER + AFFINE).replace("[-1]", "[1]"), BASE | GB, "last axis"),
        ((LAYER + AFFINE).replace("[-1]", "[1, 2]"), BASE | GB, "last axis"),
        ("y, a, c = com.microsoft.SkipLayerNormalization(x, x, g, b)", GB, "residual addition inside"),
    ],
)
def test_says_why_it_is_no_norm(body, constants, reason, build):
    (found,) = found_in(build(body, **constants))
    assert isinstance(found, Reject) and reason in found.reason


def test_an_overridable_scale_is_left_alone(build):
    model = build(LAYER + AFFINE, overridable="float[4] g", **BASE, **GB)
    assert any(isinstance(found, Reject) and "override" in found.reason for found in found_in(model))
    assert not any(isinstance(found, Norm) and found.gamma_place for found in found_in(model))


@pytest.mark.parametrize(
    "body",
    [
        "q = Pow(x, two) " + MOMENT + "s = Sqrt(ve) y = Div(s, x)",  # upside down
        "q = Pow(x, two) " + MOMENT + "s = Sqrt(ve) y = Mul(x, s)",  # multiplied
        CENTRE + "q = Pow(x, two) " + MOMENT + "s = Sqrt(ve) y = Div(d, s)",  # centred above only
        CENTRE + SQUARE + MOMENT + "s = Sqrt(ve) y = Div(x, s)",  # centred below only
        "q = Mul(x, two) " + MOMENT + "s = Sqrt(ve) y = Div(x, s)",  # not squared
        CENTRE
        + SQUARE
        + "v = ReduceMean<axes = [-1]>(q) s = Sqrt(v) se = Add(s, eps) y = Div(d, se)",  # ε outside
    ],
)
def test_other_formulas_are_nothing(body, build):
    assert found_in(build(body, **BASE)) == []


def test_a_scale_of_one_number_belongs_to_no_channel(build):
    """One learned factor for all channels is a Mul behind a norm without scale."""
    model = build(RMS + "y = Mul(n, g)", **BASE, g=np.ones((1,), np.float32))
    assert only_norm(model).output.name == "n"


def test_unknown_channels_are_said(build):
    model = build(
        RMS.replace("n = Div", "y = Div"), inputs="float[N,T,D] x", outputs="float[N,T,D] y", **BASE
    )
    (found,) = found_in(model)
    assert isinstance(found, Reject) and "channels" in found.reason


def test_a_long_chain_of_additions_is_not_followed(build):
    body = (
        LAYER
        + "a0 = Mul(n, g) "
        + " ".join(f"a{i + 1} = Add(a{i}, b)" for i in range(3000))
        + " y = Neg(a3000)"
    )
    assert only_norm(build(body, **BASE, **GB)).output.name == "a1"

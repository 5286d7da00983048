"""Every spelling of a linear layer is read as the same numbers, and takes new numbers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import Edit, Reject
from onnxq.ir.linear import Linear, find_linear, linear_giving, rewrite_linear
from onnxq.ir.walk import nodes

RANDOM = np.random.default_rng(7)
W = RANDOM.normal(size=(4, 3)).astype(np.float32)
B = RANDOM.normal(size=3).astype(np.float32)
X = RANDOM.normal(size=(2, 5, 4)).astype(np.float32)
X2 = X[0]
OUT = "float[N,T,3] y"
FLAT = {"inputs": "float[T,4] x", "outputs": "float[T,3] y"}

SPELLINGS = {
    "matmul": ("y = MatMul(x, w)", {"w": W}, False),
    "matmul add": ("h = MatMul(x, w) y = Add(h, b)", {"w": W, "b": B}, False),
    "add of bias first": ("h = MatMul(x, w) y = Add(b, h)", {"w": W, "b": B}, False),
    "bias with ones in front": ("h = MatMul(x, w) y = Add(h, b)", {"w": W, "b": B[None, None]}, False),
    "transposed weight": ("v = Transpose<perm = [1, 0]>(w) y = MatMul(x, v)", {"w": W.T.copy()}, False),
    "transposed by default": ("v = Transpose(w) y = MatMul(x, v)", {"w": W.T.copy()}, False),
    "identity of weight": (
        "v = Identity(w) c = Identity(b) h = MatMul(x, v) y = Add(h, c)",
        {"w": W, "b": B},
        False,
    ),
    "cast of weight": (
        "v = Cast<to = 1>(w) y = MatMul(x, v)",
        {"w": W.astype(np.float16)},
        False,
    ),
    "cast and transpose": (
        "u = Cast<to = 1>(w) v = Transpose<perm = [1, 0]>(u) y = MatMul(x, v)",
        {"w": W.T.astype(ml_dtypes.bfloat16)},
        False,
    ),
    "reshaped weight": (
        "v = Reshape(w, s) y = MatMul(x, v)",
        {"w": W.reshape(-1), "s": np.array([4, -1])},
        False,
    ),
    "unsqueezed weight": (
        "v = Squeeze(w, a) y = MatMul(x, v)",
        {"w": W[None], "a": np.array([0])},
        False,
    ),
    "constant node": (
        "w = Constant<value = float[4,3] {1,2,3, 4,5,6, 7,8,9, 10,11,12}>() y = MatMul(x, w)",
        {},
        False,
    ),
    "gemm": ("y = Gemm(x, w, b)", {"w": W, "b": B}, True),
    "gemm without bias": ("y = Gemm(x, w)", {"w": W}, True),
    "gemm then add": ("h = Gemm(x, w) y = Add(h, b)", {"w": W, "b": B}, True),
    "gemm transB": ("y = Gemm<transB = 1>(x, w, b)", {"w": W.T.copy(), "b": B}, True),
    "gemm alpha and beta": (
        "y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, w, b)",
        {"w": W.T.copy(), "b": B},
        True,
    ),
    "gemm alpha without bias": ("y = Gemm<alpha = 0.25>(x, w)", {"w": W}, True),
    "gemm with a row for a bias": ("y = Gemm(x, w, b)", {"w": W, "b": B[None]}, True),
    "gemm with one number for a bias": ("y = Gemm(x, w, b)", {"w": W, "b": B[:1]}, True),
}


def found_in(model: ir.Model) -> list[Linear | Reject]:
    return [found for node in nodes(model) if (found := find_linear(node)) is not None]


def only_linear(model: ir.Model) -> Linear:
    (found,) = found_in(model)
    assert isinstance(found, Linear), found
    return found


@pytest.mark.parametrize("name", SPELLINGS)
def test_reads_weight_and_bias_of_every_spelling(name, build, run):
    body, constants, flat = SPELLINGS[name]
    model = build(body, **(FLAT if flat else {"outputs": OUT}), **constants)
    linear = only_linear(model)
    x = X2 if flat else X
    bias = 0 if linear.bias is None else linear.bias
    np.testing.assert_allclose(x @ linear.weight + bias, run(model, x=x)[0], rtol=1e-5, atol=1e-5)
    assert linear.output.name == "y"
    assert (linear.channels, linear.columns) == linear.weight.shape == (4, 3)
    assert linear_giving(model.graph.outputs[0]).node is linear.node


@pytest.mark.parametrize("name", SPELLINGS)
def test_same_numbers_leave_the_output_alone(name, build, run):
    body, constants, flat = SPELLINGS[name]
    model = build(body, **(FLAT if flat else {"outputs": OUT}), **constants)
    x = X2 if flat else X
    before = run(model, x=x)[0]
    linear = only_linear(model)
    rewrite_linear(linear, Edit(model, "test"), linear.weight.copy(), linear.bias)
    np.testing.assert_allclose(run(model, x=x)[0], before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bias", [None, RANDOM.normal(size=3)], ids=["bias goes", "bias comes"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_takes_new_numbers(name, bias, build, run):
    body, constants, flat = SPELLINGS[name]
    model = build(body, **(FLAT if flat else {"outputs": OUT}), **constants)
    weight = RANDOM.normal(size=(4, 3))
    rewrite_linear(only_linear(model), Edit(model, "test"), weight, bias)
    x = X2 if flat else X
    expected = x @ weight + (0 if bias is None else bias)
    np.testing.assert_allclose(run(model, x=x)[0], expected, rtol=1e-5, atol=1e-5)
    again = only_linear(model)
    assert again.output.name == "y"
    assert (again.bias is None) == (bias is None)
    # Nothing that only the old numbers needed is left behind.
    assert len(list(nodes(model))) <= 2 and len(model.graph.initializers) <= 2


def test_a_new_bias_reaches_every_reader_under_the_old_name(build, run):
    model = build(
        "h = MatMul(x, w) p = Relu(h) q = Neg(h) y = Add(p, q)", outputs="float[N,T,3] y, float[N,T,3] h", w=W
    )
    linear = only_linear(model)
    rewrite_linear(linear, Edit(model, "test"), linear.weight, B)
    y, h = run(model, x=X)
    np.testing.assert_allclose(h, X @ W + B, atol=1e-5)
    np.testing.assert_allclose(y, np.maximum(h, 0) - h, atol=1e-5)
    assert [output.name for output in model.graph.outputs] == ["y", "h"]


def test_an_inner_value_keeps_its_name_when_a_bias_comes(build):
    model = build("h = MatMul(x, w) y = Relu(h)", outputs=OUT, w=W)
    rewrite_linear(only_linear(model), Edit(model, "test"), W, B)
    relu = model.graph.outputs[0].producer()
    assert relu.inputs[0].name == "h" and relu.inputs[0].producer().op_type == "Add"


def test_other_users_of_a_shared_weight_keep_it(build, run):
    model = build(
        "h = MatMul(x, w) k = MatMul(x, w) y = Sub(h, k) z = If(c) <then_branch = t () => (float[N,T,3] p) "
        "{ p = MatMul(x, w) }, else_branch = e () => (float[N,T,3] q) { q = MatMul(x, w) }>",
        inputs="float[N,T,4] x, bool c",
        outputs="float[N,T,3] y, float[N,T,3] z",
        w=W,
    )
    first = find_linear(next(node for node in nodes(model) if node.op_type == "MatMul"))
    rewrite_linear(first, Edit(model, "test"), 3 * W, None)
    for flag in (True, False):
        y, z = run(model, x=X, c=np.array(flag))
        np.testing.assert_allclose(y, 2 * X @ W, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(z, X @ W, rtol=1e-4, atol=1e-5)


def test_a_linear_in_a_subgraph_gets_its_own_weight(build, run):
    model = build(
        "k = MatMul(x, w) y = If(c) <then_branch = t () => (float[N,T,3] p) "
        "{ p = MatMul(x, w) }, else_branch = e () => (float[N,T,3] q) { q = Identity(k) }>",
        inputs="float[N,T,4] x, bool c",
        outputs=OUT,
        w=W,
    )
    inner = find_linear([node for node in nodes(model) if node.op_type == "MatMul"][1])
    rewrite_linear(inner, Edit(model, "test"), 3 * W, B)
    np.testing.assert_allclose(run(model, x=X, c=np.array(True))[0], X @ (3 * W) + B, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(model, x=X, c=np.array(False))[0], X @ W, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "constants", "reason"),
    [
        ("y = MatMul(w, x)", {"w": W.T.copy()}, "left"),
        ("y = MatMul(x, w)", {"w": W[None]}, "3 axes"),
        ("y = MatMul(x, w)", {"w": W[:, 0].copy()}, "1 axes"),
        ("y = com.microsoft.FusedMatMul(x, w)", {"w": W}, "FusedMatMul"),
        (
            "v = DequantizeLinear(w, s, z) y = MatMul(x, v)",
            {"w": np.ones((4, 3), np.int8), "s": np.float32(1), "z": np.int8(0)},
            "quantized already",
        ),
    ],
)
def test_says_why_a_product_is_no_linear(body, constants, reason, build):
    (found,) = found_in(build(body, outputs=OUT, **constants))
    assert isinstance(found, Reject) and reason in found.reason


@pytest.mark.parametrize(
    ("body", "constants", "reason"),
    [
        ("t = Transpose(x) y = Gemm<transA = 1>(t, w)", {"w": W}, "transA"),
        ("y = Gemm(x, w, x)", {"w": RANDOM.normal(size=(4, 4)).astype(np.float32)}, "computed"),
        ("y = Gemm(x, w, b)", {"w": W, "b": np.ones((5, 1), np.float32)}, "per column"),
    ],
)
def test_says_why_a_gemm_is_no_linear(body, constants, reason, build):
    (found,) = found_in(build(body, **FLAT, **constants))
    assert isinstance(found, Reject) and reason in found.reason


def test_an_overridable_weight_is_left_alone(build):
    model = build("y = MatMul(x, w)", outputs=OUT, overridable="float[4,3] w", w=W)
    (found,) = found_in(model)
    assert isinstance(found, Reject) and "override" in found.reason


def test_an_overridable_bias_is_no_bias(build):
    model = build("h = MatMul(x, w) y = Add(h, b)", outputs=OUT, overridable="float[3] b", w=W, b=B)
    assert only_linear(model).bias is None and only_linear(model).output.name == "h"


@pytest.mark.parametrize(
    "body",
    [
        "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(x, t)",
        "y = Mul(x, x)",
        "y = MatMul(w, w)",
    ],
)
def test_other_things_are_nothing(body, build):
    assert found_in(build(body, outputs="float[N,T,M] y", w=np.ones((4, 4), np.float32))) == []


@pytest.mark.parametrize(
    "body",
    [
        "h = MatMul(x, w) y = Add(h, b) z = Relu(h)",  # the product is read without its bias as well
        "h = MatMul(x, w) y = Add(h, p) z = Relu(y)",  # not the same for every token
        "h = MatMul(x, w) y = Add(h, x3) z = Relu(y)",  # computed
    ],
)
def test_an_add_that_is_no_bias_stays_outside(body, build):
    model = build(
        body,
        inputs="float[N,5,4] x, float[N,5,3] x3",
        outputs="float[N,5,3] y, float[N,5,3] z",
        w=W,
        b=B,
        p=np.ones((5, 3), np.float32),
    )
    linear = only_linear(model)
    assert linear.bias is None and linear.output.name == "h"


def test_a_bias_that_adds_an_axis_stays_outside(build):
    model = build("h = MatMul(x, w) y = Add(h, b)", inputs="float[T,4] x", outputs=OUT, w=W, b=B[None, None])
    assert only_linear(model).bias is None


def test_half_precision_stays_half(build, run):
    model = build(
        "h = MatMul(x, w) y = Add(h, b)",
        inputs="float16[N,T,4] x",
        outputs="float16[N,T,3] y",
        w=W.astype(np.float16),
        b=B.astype(np.float16),
    )
    linear = only_linear(model)
    assert linear.weight.dtype == np.float32
    rewrite_linear(linear, Edit(model, "test"), 2 * linear.weight, linear.bias)
    assert only_linear(model).dtype == np.float16
    np.testing.assert_allclose(run(model, x=X.astype(np.float16))[0], X @ (2 * W) + B, rtol=2e-2, atol=2e-2)


def test_an_overflow_is_refused_before_anything_changes(build):
    model = build(
        "y = MatMul(x, w)", inputs="float16[N,T,4] x", outputs="float16[N,T,3] y", w=W.astype(np.float16)
    )
    linear, edit = only_linear(model), Edit(model, "test")
    with pytest.raises(ValueError, match="do not fit into float16"):
        rewrite_linear(linear, edit, linear.weight * 1e6, None)
    assert edit.changes == [] and np.array_equal(only_linear(model).weight, W.astype(np.float16))


def test_a_wrong_shape_is_refused(build):
    model = build("y = MatMul(x, w)", outputs=OUT, w=W)
    with pytest.raises(ValueError, match="4 x 3"):
        rewrite_linear(only_linear(model), Edit(model, "test"), W.T, None)


def test_the_weight_itself_means_no_copy(build):
    model = build("y = MatMul(x, w)", outputs=OUT, w=W)
    linear = only_linear(model)
    rewrite_linear(linear, Edit(model, "test"), linear.weight, B)
    assert set(model.graph.initializers) >= {"w"}


def test_tied_weights_share_a_root(build):
    model = build(
        "t = Transpose(e) r = Gather(e, i) y = MatMul(r, t)",
        inputs="int64[N] i",
        outputs="float[N,4] y",
        e=W,
    )
    assert only_linear(model).root is model.graph.initializers["e"]


def test_a_linear_inside_a_function_body(run):
    text = """
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[N,T,2] x) => (float[N,T,2] y) { y = own.layer(x) }
    <domain: "own", opset_import: ["" : 17]>
    layer (a) => (c) {
        w = Constant<value = float[2,2] {1, 2, 3, 4}>()
        b = Constant<value = float[2] {5, 6}>()
        h = MatMul(a, w)
        c = Add(h, b)
    }"""
    model = ir.from_onnx_text(text)
    linear = only_linear(model)
    np.testing.assert_array_equal(linear.bias, [5, 6])
    rewrite_linear(linear, Edit(model, "test"), np.eye(2), np.array([1.0, -1.0]))
    x = X[:, :, :2]
    np.testing.assert_allclose(run(model, x=x)[0], x + np.array([1, -1]), atol=1e-6)

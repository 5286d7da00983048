"""Embeddings, residuals, attention and feed-forward blocks in spellings that the kept exports do not show."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import Reject
from onnxq.ir.attention import AttentionBlock, find_attention
from onnxq.ir.embedding import Embedding, find_embedding, linears_of
from onnxq.ir.feedforward import find_feedforward
from onnxq.ir.heads import Heads
from onnxq.ir.residual import Residual, find_residual, find_streams
from onnxq.ir.walk import nodes

EYE = np.eye(4, dtype=np.float32)
ONES = np.ones(4, np.float32)


def residuals_in(model: ir.Model) -> list[Residual]:
    return [found for node in nodes(model) if (found := find_residual(node)) is not None]


def embeddings_in(model: ir.Model) -> list[Embedding | Reject]:
    return [found for node in nodes(model) if (found := find_embedding(node)) is not None]


def attentions_in(model: ir.Model) -> list[AttentionBlock | Reject]:
    return [found for node in nodes(model) if (found := find_attention(node)) is not None]


TOKENS = {"inputs": "int64[N,T] x"}


def test_an_embedding_and_the_head_tied_to_it(build):
    table = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    model = build(
        "h = Gather(e, x) t = Transpose(e) y = MatMul(h, t) z = MatMul(h, w)",
        **TOKENS,
        outputs="float[N,T,9] y, float[N,T,4] z",
        e=table,
        w=EYE,
    )
    (found,) = embeddings_in(model)
    assert (found.rows, found.channels, found.indices.name, found.output.name) == (9, 4, "x", "h")
    np.testing.assert_array_equal(found.table, table)
    assert [linear.output.name for linear in found.tied] == ["y"]


def test_a_head_tied_by_a_transposed_gemm_in_a_subgraph(build):
    model = build(
        "h = Gather(e, x) y = If(c) <then_branch = t () => (float[N,9] p) { p = Gemm<transB = 1>(h, e) }, "
        "else_branch = f () => (float[N,9] q) { q = Gemm<transB = 1>(h, e) }>",
        inputs="int64[N] x, bool c",
        outputs="float[N,9] y",
        e=np.ones((9, 4), np.float32),
    )
    (found,) = embeddings_in(model)
    assert [linear.node.op_type for linear in found.tied] == ["Gemm", "Gemm"]


def test_linears_that_share_a_weight(build):
    """As layers do that share their parameters."""
    model = build("h = MatMul(x, w) k = Relu(h) y = MatMul(k, w)", w=EYE)
    assert [linear.output.name for linear in linears_of(model.graph.initializers["w"])] == ["h", "y"]


@pytest.mark.parametrize(
    ("body", "table"),
    [
        ("y = Gather<axis = 1>(e, x)", np.ones((9, 4), np.float32)),
        ("y = Gather(e, x)", np.ones(9, np.float32)),
        ("y = Gather(e, x)", np.ones((9, 4), np.int64)),
        ("y = GatherElements(e, x)", np.ones((9, 4), np.float32)),
    ],
)
def test_other_lookups_are_no_embedding(body, table, build):
    assert embeddings_in(build(body, **TOKENS, outputs="y", e=table)) == []


def test_an_overridable_table_is_left_alone(build):
    model = build("y = Gather(e, x)", **TOKENS, overridable="float[9,4] e", e=np.ones((9, 4), np.float32))
    (found,) = embeddings_in(model)
    assert isinstance(found, Reject) and "override" in found.reason


@pytest.mark.parametrize(
    ("body", "skip", "linears"),
    [
        ("b = MatMul(x, w) y = Add(x, b)", "x", 1),
        ("b = MatMul(x, w) y = Add(b, x)", "x", 1),
        ("p = MatMul(x, w) b = Add(p, g) y = Add(b, x)", "x", 1),
        ("n = LayerNormalization(x, g) b = MatMul(n, w) y = Add(x, b)", "x", 1),
        ("p = MatMul(x, w) b = Mul(p, g) y = Add(x, b)", "x", 1),  # layer scale
        ("p = MatMul(x, w) b = LayerNormalization(p, g) y = Add(x, b)", "x", 1),  # norm behind the branch
        ("p = MatMul(x, w) b = Dropout(p) y = Add(x, b)", "x", 1),
        ("p = MatMul(x, w) q = MatMul(x, w) b = Add(p, q) y = Add(x, b)", "x", 2),  # parallel branches
        ("i = Identity(x) b = MatMul(x, w) y = Add(i, b)", "i", 1),
    ],
)
def test_residuals(body, skip, linears, build):
    (found,) = residuals_in(build(body, w=EYE, g=ONES))
    assert (found.skip.name, found.output.name, len(found.linears)) == (skip, "y", linears)
    assert (found.linear is None) == (linears == 2)


def test_two_branches_added_one_after_the_other(build):
    model = build("p = MatMul(x, w) q = MatMul(x, w) a = Add(x, p) y = Add(a, q)", w=EYE)
    first, second = residuals_in(model)
    assert (first.skip.name, second.skip.name, second.branch.name) == ("x", "a", "q")


@pytest.mark.parametrize(
    "body",
    [
        "b = MatMul(x, w) y = Add(b, g)",  # a bias
        "b = Mul(x, x) y = Add(x, b)",  # elementwise
        "b = Relu(x) c = MatMul(z, w) y = Add(b, c)",  # two sources
        "p = MatMul(x, w) s = Softmax(p) y = Add(x, s)",  # the branch does not end with a linear layer
        "y = Add(x, z)",
    ],
)
def test_other_sums_are_no_residual(body, build):
    model = build(body, inputs="float[N,T,4] x, float[N,T,4] z", w=EYE, g=ONES)
    assert residuals_in(model) == []


def test_a_position_bias_that_every_layer_adds_is_no_residual(build):
    """The scores of the second layer are computed from the bias, by way of the first."""
    layer = "{0}s = MatMul({1}, {1}t) {0}b = Add({0}s, p) {0}m = Softmax({0}b) "
    layer += "{0}c = MatMul({0}m, {1}) {0} = MatMul({0}c, w) "
    body = "xt = Transpose<perm = [0, 2, 1]>(x) " + layer.format("a", "x")
    body += "at = Transpose<perm = [0, 2, 1]>(a) " + layer.format("y", "a")
    model = build(body, inputs="float[N,T,4] x, float[N,T,T] p", w=EYE)
    assert residuals_in(model) == []


def test_a_stream_runs_through_its_norms(build):
    body = "b = MatMul(x, w) s = Add(x, b) n = LayerNormalization(s, g) c = MatMul(n, w) y = Add(c, n)"
    (stream,) = find_streams(build(body, w=EYE, g=ONES))
    assert stream.start.name == "x"
    assert [residual.output.name for residual in stream.residuals] == ["s", "y"]
    assert [norm.output.name for norm in stream.norms] == ["n"]


def test_a_sum_of_two_joins_a_branch_as_an_add_does(build):
    body = "b = MatMul(x, w) s = Sum(x, b) n = LayerNormalization(s, g) c = MatMul(n, w) y = Sum(c, n)"
    model = build(body, w=EYE, g=ONES)
    assert [(found.skip.name, found.skip_index) for found in residuals_in(model)] == [("x", 0), ("n", 1)]
    (stream,) = find_streams(model)
    assert [residual.output.name for residual in stream.residuals] == ["s", "y"]
    for other in ("y = Sum(x)", "b = MatMul(x, w) y = Sum(x, b, b)"):
        assert residuals_in(build(other, w=EYE)) == []


QKV = "q0 = MatMul(x, a) k0 = MatMul(x, b) v0 = MatMul(x, c) "
SPLIT = (
    "q1 = Reshape(q0, hs) q = Transpose<perm = [0, 2, 1, 3]>(q1) "
    "k1 = Reshape(k0, hs) k = Transpose<perm = [0, 2, 3, 1]>(k1) "
    "v1 = Reshape(v0, hs) v = Transpose<perm = [0, 2, 1, 3]>(v1) "
)
MERGE = "o = MatMul(p, v) o1 = Transpose<perm = [0, 2, 1, 3]>(o) o2 = Reshape(o1, ms) y = MatMul(o2, d)"
ATTENTION = {
    "a": np.ones((8, 8), np.float32),
    "b": np.ones((8, 8), np.float32),
    "c": np.ones((8, 8), np.float32),
    "d": np.ones((8, 8), np.float32),
    "hs": np.array([0, 0, 2, 4]),
    "ms": np.array([0, 0, 8]),
    "half": np.float32(0.5),
    "two": np.float32(2),
    "low": np.float32(-1e9),
}
SHAPED = {"inputs": "float[N,T,8] x, float[N,1,T,T] mask, bool[N,1,T,T] keep", "outputs": "float[N,T,8] y"}


def attention_model(build, body: str) -> ir.Model:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return build(body, **SHAPED, **{name: array for name, array in ATTENTION.items() if name in words})


@pytest.mark.parametrize(
    ("scores", "scale", "masks"),
    [
        ("s = MatMul(q, k) p = Softmax(s) ", 1.0, []),
        ("m = MatMul(q, k) s = Mul(m, half) p = Softmax(s) ", 0.5, []),
        ("m = MatMul(q, k) s = Div(m, two) e = Add(s, mask) p = Softmax(e) ", 0.5, ["mask"]),
        ("m = MatMul(q, k) s = Div(m, two) e = Add(mask, s) p = Softmax(e) ", 0.5, ["mask"]),
        ("z = Mul(q, half) m = MatMul(z, k) e = Where(keep, m, low) p = Softmax(e) ", 0.5, ["keep"]),
        (
            "z = Div(q, two) j = Mul(k, half) m = MatMul(z, j) e = Add(m, mask) p = Softmax<axis = 3>(e) ",
            0.25,
            ["mask"],
        ),
        (
            "m = MatMul(q, k) e = Add(m, mask) p0 = Softmax(e) p1 = Dropout(p0) p = Cast<to = 1>(p1) ",
            1.0,
            ["mask"],
        ),
        (
            "m = MatMul(q, k) e = Add(m, mask) p0 = Softmax(e) i = IsNaN(p0) p = Where(i, two, p0) ",
            1.0,
            ["mask"],
        ),
        ("m = MatMul(q, k) t = Div(m, two) u = Tanh(t) w = Mul(u, two) p = Softmax(w) ", 1.0, []),
    ],
)
def test_scores_in_every_spelling(scores, scale, masks, build):
    (block,) = attentions_in(attention_model(build, QKV + SPLIT + scores + MERGE))
    assert block.scale == pytest.approx(scale)
    assert [mask.name for mask in block.masks] == masks
    assert [linear.output.name for linear in (block.query, block.key, block.value, block.output)] == [
        "q0",
        "k0",
        "v0",
        "y",
    ]
    assert block.heads == Heads(2, 2, 4)
    assert (block.is_rotary, block.is_cross, block.is_cached) == (False, False, False)


def test_one_layer_for_queries_keys_and_values(build):
    body = "f = MatMul(x, a) q0, k0, v0 = Split<axis = -1>(f, thirds) " + SPLIT
    body += "s = MatMul(q, k) p = Softmax(s) " + MERGE
    constants = {name: ATTENTION[name] for name in ("d", "hs", "ms")}
    fused = np.ones((8, 24), np.float32)
    (block,) = attentions_in(build(body, **SHAPED, **constants, a=fused, thirds=np.array([8, 8, 8])))
    assert block.query.node is block.key.node is block.value.node
    assert block.heads == Heads(2, 2, 4)


def test_keys_of_earlier_calls(build):
    body = (
        QKV
        + SPLIT.replace(" k = ", " k2 = ")
        + "k = Concat<axis = 3>(past, k2) s = MatMul(q, k) p = Softmax(s) "
        + MERGE
    )
    inputs = {"inputs": "float[N,T,8] x, float[N,2,4,P] past", "outputs": "float[N,T,8] y"}
    (block,) = attentions_in(
        build(body, **inputs, **{name: ATTENTION[name] for name in ("a", "b", "c", "d", "hs", "ms")})
    )
    assert block.is_cached and block.key.output.name == "k0"


def test_says_why_an_attention_is_left_alone(build):
    body = (
        SPLIT.replace("k1 = Reshape(k0, hs)", "k1 = Reshape(x, hs)")
        + "s = MatMul(q, k) p = Softmax(s) "
        + MERGE
    )
    body = "q0 = MatMul(x, a) v0 = MatMul(x, c) " + body
    (found,) = attentions_in(attention_model(build, body))
    assert isinstance(found, Reject) and "keys come from no linear layers" in found.reason
    fused = build("y = com.microsoft.Attention<num_heads = 2>(x, w, b)", w=EYE, b=ONES)
    (found,) = attentions_in(fused)
    assert isinstance(found, Reject) and "fused already" in found.reason


@pytest.mark.parametrize(
    "body",
    ["h = MatMul(x, a) y = Softmax(h)", "h = MatMul(x, a) s = Softmax(h) y = MatMul(s, b)", "y = Softmax(x)"],
)
def test_the_softmax_of_a_classifier_is_no_attention(body, build):
    assert attentions_in(attention_model(build, body)) == []


UP_TWICE = "u = MatMul(x, up) v = MatMul(x, up) "
UP, DOWN = np.ones((4, 6), np.float32), np.ones((6, 4), np.float32)


@pytest.mark.parametrize(
    ("body", "constants", "kind", "gated"),
    [
        ("u = MatMul(x, up) h = Relu(u) y = MatMul(h, down)", {}, "relu", False),
        (
            "u = MatMul(x, up) b = Add(u, c) h = Gelu(b) y = MatMul(h, down)",
            {"c": np.ones(6, np.float32)},
            "gelu-erf",
            False,
        ),
        (
            UP_TWICE + "s = Sigmoid(u) a = Mul(u, s) h = Mul(a, v) y = MatMul(h, down)",
            {},
            "silu",
            True,
        ),
        (
            UP_TWICE + "a = Gelu(v) h = Mul(u, a) y = MatMul(h, down)",
            {},
            "gelu-erf",
            True,
        ),
    ],
)
def test_feedforward_blocks(body, constants, kind, gated, build):
    model = build(body, opset=20, up=UP, down=DOWN, **constants)
    (block,) = [found for node in nodes(model) if (found := find_feedforward(node)) is not None]
    assert (block.activation.kind, block.gate is not None, block.product is not None) == (kind, gated, gated)
    assert (block.up.channels, block.down.channels, block.down.output.name) == (4, 6, "y")


def test_gate_and_up_from_one_layer(build):
    model = build(
        "f = MatMul(x, w) g, u = Split<axis = -1>(f, s) a = Gelu(g) h = Mul(a, u) y = MatMul(h, down)",
        opset=20,
        w=np.ones((4, 12), np.float32),
        down=DOWN,
        s=np.array([6, 6]),
    )
    (block,) = [found for node in nodes(model) if (found := find_feedforward(node)) is not None]
    assert block.gate.node is block.up.node


@pytest.mark.parametrize(
    "body", ["h = MatMul(x, up) y = MatMul(h, down)", "h = Relu(x) u = MatMul(h, up) y = MatMul(u, down)"]
)
def test_two_linears_are_no_feedforward_block(body, build):
    model = build(body, up=UP, down=DOWN)
    assert [find_feedforward(node) for node in nodes(model)] == [None] * len(list(nodes(model)))

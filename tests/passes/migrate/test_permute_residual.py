"""The channels of a stream change their order and nobody can tell from the outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.permutation import PERMUTED
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.permute_residual import PermuteResidual, order_by_range
from onnxq.pipeline import apply_pass, broken_promise
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics
from onnxq.verify import Verdict
from tests.graphs import model_of, outputs_of
from tests.passes.migrate.families import (
    activation_statistics,
    every_spelling,
    family,
    judged,
    made_by,
    norm_statistics,
    norms_of,
)

STREAMS = {"post": 1, "pre": 1, "decoder": 1, "crossed": 2}  # an encoder-decoder has one for each
C = 6
ORDER = (4, 2, 0, 5, 1, 3)


def seen(name: str = "n", channels: int = C) -> Statistics:
    """Extremes by which `ORDER` is the order of the channels, if there are six."""
    reach = np.arange(channels, dtype=np.float64)
    high = np.empty(channels)
    high[list(ORDER[:channels])] = reach + 1
    return Statistics({name: TensorStatistics(1, channel=ChannelExtremes(np.zeros(channels), high))})


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def permuted(model: ir.Model, a_pass: PermuteResidual | None = None, statistics: Statistics | None = None):
    """What the pass makes of the model, found exact."""
    a_pass = a_pass or PermuteResidual()
    result = apply_pass(model, a_pass, statistics or seen())
    assert result.modified, result.rejects
    assert result.settled
    assert broken_promise(model, result.model, a_pass) == ""
    judgement = judged(model, result.model)
    assert judgement.verdict is Verdict.EQUAL, judgement.reason
    return result


def reasons(model: ir.Model, a_pass: PermuteResidual | None = None) -> list[str]:
    result = apply_pass(model, a_pass or PermuteResidual(), seen())
    assert not result.modified
    return [reject.reason for reject in result.rejects]


@every_spelling
def test_every_norm_of_real_exports_gets_another_order(name, opset, dynamo, precision):
    before = family(name, opset, dynamo, precision)
    result = permuted(before, statistics=norm_statistics(before))
    old, new = norms_of(before), norms_of(result.model)
    assert len(old) == len(new)
    assert all(PERMUTED in str(norm.output.name) for norm in new)
    for one, other in zip(old, new, strict=True):
        assert sorted(one.gamma) == sorted(other.gamma)
    if precision == "float32":  # in half precision some are equal
        pairs = [
            (np.argsort(one.gamma), np.argsort(other.gamma)) for one, other in zip(old, new, strict=True)
        ]
        orders = {tuple(one[np.argsort(other)]) for one, other in pairs}
        assert len(orders) == STREAMS[name]


@every_spelling
def test_hidden_channels_of_feed_forwards_can_be_ordered_too(name, opset, dynamo, precision):
    before = family(name, opset, dynamo, precision)
    result = permuted(before, PermuteResidual(scope="hidden"), activation_statistics(before))
    assert made_by(result.model, PermuteResidual) == [], "nothing is added"
    assert not any(PERMUTED in str(norm.output.name) for norm in norms_of(result.model))
    renamed = [change for change in result.changes if change.action == "rename"]
    assert len(renamed) >= 4, "two layers, at least what the activation reads and gives in each"


def test_outliers_end_up_last():
    model = model_of(
        f"g (float[N,{C}] x) => (float[N,2] y) <float[{C}] gamma, float[{C},2] w> "
        "{ n = LayerNormalization(x, gamma) y = MatMul(n, w) }",
        gamma=numbers(C),
        w=numbers(C, 2),
    )
    result = permuted(model)
    (norm,) = norms_of(result.model)
    np.testing.assert_array_equal(norm.gamma, numbers(C)[list(ORDER)])
    assert [node.op_type for node in result.model.graph] == ["Gather", "LayerNormalization", "MatMul"]


def test_an_output_that_shows_the_stream_keeps_its_order_and_its_readers_see_the_new_one():
    model = model_of(
        f"g (int64[N] ids) => (float[N,{C}] n, float[N,{C}] z) "
        f"<float[9,{C}] table, float[{C}] gamma, float[{C},{C}] w> "
        "{ e = Gather(table, ids) n = LayerNormalization(e, gamma) m = MatMul(n, w) z = Add(m, n) }",
        table=numbers(9, C),
        gamma=numbers(C),
        w=numbers(C, C),
    )
    result = permuted(model)
    operators = [node.op_type for node in result.model.graph]
    assert operators == ["Gather", "LayerNormalization", "Gather", "MatMul", "Add", "Gather"]
    feed = {"ids": np.array([3, 1, 8])}
    old, new = outputs_of(model, feed), outputs_of(result.model, feed)
    np.testing.assert_allclose(new["n"], old["n"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new["z"], old["z"], rtol=1e-5, atol=1e-5)


def test_a_head_tied_to_the_embedding_stays_tied():
    model = model_of(
        f"g (int64[N] ids) => (float[N,9] y) <float[9,{C}] table, float[{C}] gamma> "
        "{ e = Gather(table, ids) n = LayerNormalization(e, gamma) "
        "t = Transpose<perm = [1, 0]>(table) y = MatMul(n, t) }",
        table=numbers(9, C),
        gamma=numbers(C),
    )
    result = permuted(model)
    sizes = sorted(value.const_value.size for value in result.model.graph.initializers.values())
    assert sizes == [C, 9 * C]


def test_a_constant_that_others_read_stays_theirs():
    model = model_of(
        f"g (int64[N] ids, float[N,{C}] o) => (float[N,2] y, float[N,{C}] z) "
        f"<float[9,{C}] table, float[{C}] gamma, float[{C},2] w> "
        "{ e = Gather(table, ids) n = LayerNormalization(e, gamma) y = MatMul(n, w) z = Mul(o, gamma) }",
        table=numbers(9, C),
        gamma=numbers(C),
        w=numbers(C, 2),
    )
    result = permuted(model)
    np.testing.assert_array_equal(result.model.graph.initializers["gamma"].const_value.numpy(), numbers(C))


def test_patches_and_the_convolution_that_reads_tokens_back():
    model = model_of(
        f"g (float[B,3,4,6] x) => (float[B,5,4,6] y) <float[{C},3,2,2] patch, float[{C}] b, "
        f"float[1,1,{C}] first, float[1,7,{C}] places, float[{C}] gamma, float[{C},5,2,2] back, "
        "int64[3] flat, int64[1] one, int64[1] many, int64[4] image> "
        "{ c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, patch, b) r = Reshape(c, flat) "
        "t = Transpose<perm = [0, 2, 1]>(r) s = Shape<end = 1>(x) k = Concat<axis = 0>(s, one, one) "
        "f = Expand(first, k) e = Concat<axis = 1>(f, t) p = Add(e, places) n = LayerNormalization(p, gamma) "
        "u = Slice(n, one, many, one) v = Transpose<perm = [0, 2, 1]>(u) i = Reshape(v, image) "
        "y = ConvTranspose<kernel_shape = [2, 2], strides = [2, 2]>(i, back) }",
        patch=numbers(C, 3, 2, 2),
        b=numbers(C),
        first=numbers(1, 1, C),
        places=numbers(1, 7, C),
        gamma=numbers(C),
        back=numbers(C, 5, 2, 2),
        flat=np.array([0, C, -1]),
        one=np.array([1]),
        many=np.array([2**40]),
        image=np.array([0, C, 2, 3]),
    )
    inferred = apply_pass(model, _infer_shapes()).model
    result = permuted(inferred)
    assert made_by(result.model, PermuteResidual) == []


def _infer_shapes():
    from onnxq.passes.clean.infer_shapes import InferShapes

    return InferShapes()


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        ("y = Reshape(n, heads)", "float[N,2,3] y", "Reshape divides the channels"),
        ("y = Slice(n, zero, two, last)", "float[N,2] y", "Slice picks channels"),
        ("y, z = Split<axis = -1>(n, parts)", "float[N,2] y, float[N,4] z", "Split divides the channels"),
        ("y = Gather<axis = -1>(n, two)", "float[N,1] y", "Gather picks channels"),
        ("y = Concat<axis = -1>(n, n)", "float[N,12] y", "Concat joins"),
        ("y = CumSum(n, last)", "float[N,6] y", "CumSum is not known"),
        ("y = Flatten<axis = 0>(n)", "float[1,M] y", "Flatten joins"),
        ("y = Add(n, scale)", "float[N,6] y", "may override"),
    ],
)
def test_refuses_what_no_order_passes(body, outputs, reason):
    model = model_of(
        f"g (int64[N] ids, float[{C}] scale) => ({outputs}) <float[9,{C}] table, float[{C}] gamma, "
        f"float[{C}] scale, int64[3] heads, int64[1] zero, int64[1] two, int64[1] last, int64[2] parts> "
        f"{{ e = Gather(table, ids) n = LayerNormalization(e, gamma) {body} }}",
        table=numbers(9, C),
        gamma=numbers(C),
        scale=numbers(C),
        heads=np.array([-1, 2, 3]),
        zero=np.array([0]),
        two=np.array([2]),
        last=np.array([-1]),
        parts=np.array([2, 4]),
    )
    (found,) = reasons(model)
    assert reason in found


def test_an_order_that_is_given():
    model = model_of(
        f"g (int64[N] ids) => (float[N,2] y) <float[9,{C}] table, float[{C}] gamma, float[{C},2] w> "
        "{ e = Gather(table, ids) n = LayerNormalization(e, gamma) y = MatMul(n, w) }",
        table=numbers(9, C),
        gamma=numbers(C),
        w=numbers(C, 2),
    )
    order = (5, 4, 3, 2, 1, 0)
    result = permuted(model, PermuteResidual(order=order))
    (norm,) = norms_of(result.model)
    np.testing.assert_array_equal(norm.gamma, numbers(C)[::-1])
    assert not apply_pass(result.model, PermuteResidual(order=order), seen()).modified
    assert "order given" in reasons(model, PermuteResidual(order=(0, 1)))[0]
    assert "in order already" in reasons(model, PermuteResidual(order=(0, 1, 2, 3, 4, 5)))[0]


def test_ranks_by_the_mean_of_ranges_over_their_medians():
    one = ChannelExtremes(np.array([0.0, -1.0, 0.0]), np.array([2.0, 1.0, 8.0]))  # 2, 2, 8: 1, 1, 4
    other = ChannelExtremes(np.zeros(3), np.array([500.0, 100.0, 100.0]))  # 5, 1, 1
    assert order_by_range([one]) == (0, 1, 2)
    assert order_by_range([one, other]) == (1, 2, 0)
    assert order_by_range([ChannelExtremes(np.zeros(2), np.zeros(2))]) == (0, 1)


def test_norms_inside_branches_read_what_is_ordered_outside():
    model = model_of(
        f"g (bool c, int64[N] ids) => (float[N,2] y) <float[9,{C}] table, float[{C}] gamma, float[{C},2] w> "
        "{ e = Gather(table, ids) y = If(c) <"
        "then_branch = t () => (float[N,2] a) { n = LayerNormalization(e, gamma) a = MatMul(n, w) }, "
        "else_branch = f () => (float[N,2] b) { o = Tanh(e) b = MatMul(o, w) }> }",
        table=numbers(9, C),
        gamma=numbers(C),
        w=numbers(C, 2),
    )
    result = permuted(model)
    (norm,) = [found for node in nodes(result.model) if isinstance(found := find_norm(node), Norm)]
    np.testing.assert_array_equal(norm.gamma, numbers(C)[list(ORDER)])

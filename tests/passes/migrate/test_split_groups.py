"""Products become sums over groups of channels, and every group its own range."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.migrate.split_groups import SplitGroups
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import Gather, apply_pass, broken_promise, run
from onnxq.runtime.delivery import with_taps
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics
from onnxq.verify import Verdict
from tests.graphs import model_of, outputs_of
from tests.passes.migrate.families import activation_statistics, family, judged, made_by

K, N = 384, 32


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng([1, *shape]).normal(size=shape).astype(np.float32)


def two_readers() -> ir.Model:
    return model_of(
        f"g (float[M,{K}] x) => (float[M,{N}] y, float[M,16] z, float[M,{K}] t) "
        f"<float[{K},{N}] w, float[{N}] b, float[16,{K}] v> "
        "{ m = MatMul(x, w) y = Add(m, b) z = Gemm<transB = 1, alpha = 2.0>(x, v) t = Tanh(x) }",
        w=numbers(K, N),
        b=numbers(N),
        v=numbers(16, K),
    )


def seen(high: np.ndarray) -> Statistics:
    return Statistics({"x": TensorStatistics(1, channel=ChannelExtremes(-high / 2, high))})


def towering(*places: int) -> Statistics:
    high = np.linspace(1.0, 1.1, K)
    high[list(places)] = 50.0
    return seen(high)


def gather_on(x: np.ndarray) -> Gather:
    """Statistics of any values of a model whose only input is `x`."""

    def gather(model, wanted):
        names = sorted({name for group in wanted.values() for name in group})
        tapped = with_taps(model, [name for name in names if name != "x"])
        arrays = outputs_of(tapped, {"x": x}) | {"x": x}
        return Statistics({name: TensorStatistics.of(arrays[name]) for name in names})

    return gather


def split(model: ir.Model, a_pass: SplitGroups, statistics: Statistics):
    result = apply_pass(model, a_pass, statistics)
    assert result.modified, result.rejects
    assert result.settled
    assert broken_promise(model, result.model, a_pass) == ""
    judgement = judged(model, result.model)
    assert judgement.verdict is Verdict.EQUAL, judgement.reason
    assert not apply_pass(result.model, a_pass, statistics).modified
    return result.model


def sizes_of(model: ir.Model) -> list[list[int]]:
    splits = [node for node in model.graph if node.op_type == "Split"]
    return [node.inputs[1].const_value.numpy().tolist() for node in splits]


def why(a_pass: SplitGroups, statistics: Statistics) -> str:
    result = apply_pass(two_readers(), a_pass, statistics)
    assert not result.modified
    return result.rejects[0].reason


def test_one_split_serves_every_linear_and_no_one_else():
    after = split(two_readers(), SplitGroups(groups=3), towering())
    assert sizes_of(after) == [[128, 128, 128]]
    assert [node.op_type for node in after.graph].count("Sum") == 2
    (tanh,) = [node for node in after.graph if node.op_type == "Tanh"]
    assert tanh.inputs[0] is after.graph.inputs[0]
    assert sum(node.op_type == "Add" for node in after.graph) == 1, "the bias is in one group"


@pytest.mark.parametrize(("places", "size"), [((383,), 1), ((380, 381, 382, 383), 4), (range(376, 384), 8)])
def test_the_last_few_go_by_themselves_where_they_tower(places, size):
    assert sizes_of(split(two_readers(), SplitGroups(), towering(*places))) == [[K - size, size]]


def test_outliers_in_the_middle_need_a_gather():
    assert "times only" in why(SplitGroups(), towering(3, 20))
    after = split(two_readers(), SplitGroups(gather=True), towering(3, 20))
    assert sizes_of(after) == [[K - 2, 2]]
    (order,) = [node for node in after.graph if node.op_type == "Gather"]
    assert sorted(order.inputs[1].const_value.numpy()[-2:]) == [3, 20]


def test_sizes_that_are_given():
    after = split(two_readers(), SplitGroups(sizes=(200, 180, 4)), Statistics())
    assert sizes_of(after) == [[200, 180, 4]]


@pytest.mark.parametrize(
    ("a_pass", "reason"),
    [
        (SplitGroups(groups=5), "do not fall into 5 equal groups"),
        (SplitGroups(groups=32), "groups of 12 channels are too narrow"),
        (SplitGroups(sizes=(16, 16)), "do not divide"),
        (SplitGroups(sizes=(384,)), "do not divide"),
        (SplitGroups(least=40), "too small"),
        (SplitGroups(), "times only"),
        (SplitGroups(skip=("n",)), "stay whole"),
    ],
)
def test_refusals(a_pass, reason):
    model = two_readers()
    for node in model.graph:
        node.name = "n"
    result = apply_pass(model, a_pass, towering())
    assert not result.modified
    assert any(reason in reject.reason for reject in result.rejects), result.rejects


def test_a_linear_that_stays_whole_reads_the_whole_tensor():
    model = two_readers()
    model.graph[2].name = "whole"
    after = split(model, SplitGroups(groups=3, skip=("whole",)), towering())
    (gemm,) = [node for node in after.graph if node.op_type == "Gemm"]
    assert gemm.inputs[0] is after.graph.inputs[0]


def test_each_group_is_quantized_with_its_own_range():
    """The statistics of the groups are gathered anew: they are tensors that were not there before."""
    model = two_readers()
    passes = [SplitGroups(groups=3), QuantizeLinears()]
    result = run(model, passes, gather=gather_on(numbers(64, K)), verify="never")
    products = [node for node in result.model.graph if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 6
    scales = {float(node.inputs[2].const_value.numpy()) for node in products}
    assert len(scales) == 3, "one for each group, shared by the two linears"


def test_groups_bring_integer_products_nearer():
    model = two_readers()
    draw = np.random.default_rng(0)
    x = draw.normal(size=(64, K)).astype(np.float32)
    x[:, -3:] *= 40
    exact = outputs_of(model, {"x": x})["y"]

    def error(*passes) -> float:
        after = run(model, [*passes, QuantizeLinears()], gather=gather_on(x), verify="never").model
        return float(np.square(outputs_of(after, {"x": x})["y"] - exact).mean())

    whole, equal, tail = error(), error(SplitGroups(groups=3)), error(SplitGroups())
    assert equal < whole / 1.2
    assert tail < equal / 4


@pytest.mark.parametrize(("name", "opset"), [("post", 14), ("pre", 17), ("decoder", 14)])
def test_real_exports(name, opset):
    before = family(name, opset, False)
    a_pass = SplitGroups(groups=2, least=8)
    result = apply_pass(before, a_pass, activation_statistics(before))
    assert result.modified
    assert broken_promise(before, result.model, a_pass) == ""
    assert judged(before, result.model).verdict is Verdict.EQUAL
    made = made_by(result.model, a_pass)
    assert made.count("MatMul") == 2 * made.count("Sum")


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 4), (3, 8)])
def test_bits_decide_whether_a_group_is_worth_it(weight_bits, activation_bits):
    """Three bits of a weight err more than a wide range of eight does: told before, and so when run."""
    x = np.random.default_rng(0).normal(size=(64, K)).astype(np.float32)
    x[:, -3:] *= 6
    model, rounding = two_readers(), QuantizeLinears(weight_bits=weight_bits, activation_bits=activation_bits)
    exact = outputs_of(model, {"x": x})["y"]

    def error(*passes) -> float:
        after = run(model, [*passes, rounding], gather=gather_on(x), verify="never").model
        return float(np.square(outputs_of(after, {"x": x})["y"] - exact).mean())

    a_pass = SplitGroups(weight_bits=weight_bits, activation_bits=activation_bits, gain=2.0)
    split_at_all = apply_pass(model, a_pass, Statistics({"x": TensorStatistics.of(x)})).modified
    assert split_at_all == (activation_bits == 4)
    assert (error() > 2.0 * error(SplitGroups(sizes=(K - 3, 3)))) == split_at_all

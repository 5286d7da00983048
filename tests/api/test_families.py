"""Decoders and vision transformers for every kind of target; and no sample disturbs another in its batch."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.api.optimization import OptimizeResult, optimize
from onnxq.ir.walk import constant_of, nodes
from onnxq.recipe import OptimizeSettings
from onnxq.runtime import open_session
from onnxq.targets import TARGETS, violations
from onnxq.targets.costs import KernelCosts
from tests.families.build import build, feeds_for
from tests.families.spec import Dims, Spec
from tests.graphs import model_of

DIMS = Dims(width=128, heads=4, kv_heads=2, hidden=256)
SPECS = {
    "decoder": Spec(family="decoder", activation="silu", bias=False, head="scores", dims=DIMS),
    "vision": Spec(family="vision", head="states", dims=DIMS),
}
LINEARS = {"decoder": 2 * 7 + 1, "vision": 2 * 6}
NAMED = ("openvino", "cuda", "tensorrt", "arm-i8mm")
DEAR_BLOCKS = vars(KernelCosts(block_macs=5_000.0, block_row_macs=500.0))


@functools.cache
def made(family: str, target: str, weights: str = "int8") -> OptimizeResult:
    data = [feeds_for(SPECS[family], seed) for seed in range(12)]
    settings = OptimizeSettings(target=target, weights=weights, effort="fast", verify="never", threads=1)  # type: ignore[arg-type]
    return optimize(build(SPECS[family]), data, settings=settings)


@pytest.mark.parametrize("target", NAMED)
@pytest.mark.parametrize("family", SPECS)
def test_a_family_keeps_the_rules_of_a_target_and_its_ports(family: str, target: str) -> None:
    model, original = made(family, target).model, build(SPECS[family])
    assert violations(model, TARGETS[target]) == []
    for old, new in (
        (original.graph.inputs, model.graph.inputs),
        (original.graph.outputs, model.graph.outputs),
    ):
        assert [(each.name, each.dtype) for each in old] == [(each.name, each.dtype) for each in new]


@pytest.mark.parametrize("target", NAMED)
@pytest.mark.parametrize("family", SPECS)
def test_it_is_in_low_precision_and_close(family: str, target: str) -> None:
    result = made(family, target)
    ops = Counter(node.op_type for node in nodes(result.model))
    kind = {"cuda": "MatMulNBits", "arm-i8mm": "MatMulIntegerToFloat"}.get(target, "DequantizeLinear")
    assert ops[kind] >= LINEARS[family] - 4, ops
    for each in result.report.fidelity:
        assert each.cosine_mean > 0.995, each


@pytest.mark.parametrize("family", SPECS)
def test_codes_are_of_the_type_that_the_target_multiplies(family: str) -> None:
    def zero_points(target: str, op_type: str, index: int) -> list[np.ndarray]:
        found = (node for node in nodes(made(family, target).model) if node.op_type == op_type)
        return [zero for node in found if (zero := constant_of(node.inputs[index])) is not None]

    assert {zero.dtype for zero in zero_points("arm-i8mm", "QuantizeLinear", 2)} == {np.dtype(np.int8)}
    assert {zero.dtype for zero in zero_points("openvino", "QuantizeLinear", 2)} == {np.dtype(np.uint8)}
    symmetric = zero_points("tensorrt", "QuantizeLinear", 2)
    assert symmetric
    assert all(zero.dtype == np.int8 and not zero.any() for zero in symmetric)


def deviation_db(model: ir.Model, feeds: dict[str, np.ndarray]) -> float:
    """Signal over what the answer for the first sample changes by when others are in its batch, in dB."""
    session = open_session(model)
    together = session.run(feeds)
    alone = session.run({name: array[:1] for name, array in feeds.items()})
    signal = sum(float(np.square(each.astype(np.float64)).sum()) for each in alone.values())
    noise = sum(
        float(np.square(each - together[name][:1], dtype=np.float64).sum()) for name, each in alone.items()
    )
    return 10 * np.log10(signal / max(noise, 1e-300))


INVARIANT = (*((target, "int8") for target in (*NAMED, "x86-vnni", "x86-avx2", "qdq")), ("x86-vnni", "int4"))


@pytest.mark.parametrize(("target", "weights"), INVARIANT)
@pytest.mark.parametrize("family", SPECS)
def test_a_sample_alone_and_in_a_batch_get_the_same_answer(family: str, target: str, weights: str) -> None:
    found = []
    for seed in (97, 98, 99):
        feeds = feeds_for(SPECS[family], seed, samples=4)
        if family == "vision":
            feeds["pixel_values"][1:] *= 100
        found.append(deviation_db(made(family, target, weights).model, feeds))
    half = TARGETS[target].float_type == "float16"
    assert max(found) > (45 if half else 100), found
    assert min(found) > (35 if half else 40), "sums in another order may move a number by a step"


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2", "arm-i8mm"])
def test_so_they_do_with_a_scale_for_each_token(target: str) -> None:
    random = np.random.default_rng(0)
    model = model_of(
        "g (float[N, L, 128] x) => (float[N, L, 256] y) { y = MatMul(x, w) }",
        w=random.normal(size=(128, 256)).astype(np.float32),
    )
    x = random.uniform(-1, 1, size=(32, 8, 128)).astype(np.float32)
    x[:, 0] *= 1000
    settings = OptimizeSettings(target=target, effort="fast", verify="never", threads=1, costs=DEAR_BLOCKS)
    result = optimize(model, {"x": x}, settings=settings)
    assert [row.decision.split(",")[0] for row in result.report.layers] == ["int8 per-token"]
    feeds = {"x": x[:3].copy()}
    feeds["x"][1:] *= 1000
    assert deviation_db(result.model, feeds) > 100


def test_a_scale_for_the_whole_batch_would_show() -> None:
    """What the tests above measure tells such a form from the others."""
    model = model_of(
        """g (float[N, L, 4] x) => (float[N, L, 4] y) {
            q, s, z = DynamicQuantizeLinear(x)  y = DequantizeLinear(q, s, z) }"""
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    x[1] *= 100
    assert deviation_db(model, {"x": x}) < 30

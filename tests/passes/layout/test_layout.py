"""Spellings for the runtime's sake: the same numbers, and the runtime does with them what they are for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.contract import Pass
from onnxq.passes.layout.fuse_gelu import FuseGelu
from onnxq.passes.layout.move_nan_guard import MoveNanGuard
from onnxq.passes.layout.sum_before_norm import SumBeforeNorm
from onnxq.pipeline import apply_pass
from onnxq.runtime import optimized_graph
from tests.graphs import model_of, ops_of, outputs_of

ATTENTION = (
    "g (float[B,3,5] scores, float[B,5,4] v) => (float[B,3,4] y) { p = Softmax<axis = AXIS>(scores) "
    "n = IsNaN(p) zero = Constant<value = float {0.0}>() s = Where(n, zero, p) y = MatMul(s, v) }"
)
NORM = (
    "g (float[B,T,8] x, float[B,T,8] z) => (float[B,T,8] y) { t = Tanh(z) s = Add(x, t) "
    "n = LayerNormalization(s, gamma, beta) y = Mul(n, t) }"
)
ERF = (
    "g (float[N,8] x) => (float[N,8] y) { root = Constant<value = float {1.4142135}>() "
    "half = Constant<value = float {0.5}>() one = Constant<value = float {1.0}>() "
    "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half) }"
)


def rewritten(model: ir.Model, a_pass: Pass) -> ir.Model:
    result = apply_pass(model, a_pass)
    assert result.modified, result.rejects
    return result.model


def scores() -> dict[str, np.ndarray]:
    """One row whose every key is masked, one with an infinite score, one with NaN."""
    random = np.random.default_rng(0)
    made = random.normal(size=(2, 3, 5)).astype(np.float32)
    made[0, 0], made[0, 1, 2], made[1, 2, 4] = -np.inf, np.inf, np.nan
    made[1, 0, :3] = -np.inf
    return {"scores": made, "v": random.normal(size=(2, 5, 4)).astype(np.float32)}


def test_rows_that_are_all_masked_stay_zero_behind_the_product() -> None:
    model = model_of(ATTENTION.replace("AXIS", "-1"))
    after = rewritten(model, MoveNanGuard())
    assert ops_of(after).index("MatMul") < ops_of(after).index("IsNaN")
    assert ops_of(after).count("MatMul") == 1
    old, new = outputs_of(model, scores())["y"], outputs_of(after, scores())["y"]
    assert old.tobytes() == new.tobytes()
    for row in ((0, 0), (0, 1), (1, 2)):
        np.testing.assert_array_equal(new[row], 0)
    assert np.abs(new[1, 0]).min() > 0


@pytest.mark.parametrize("axis", ["1", "-2", "0"])
def test_a_softmax_over_another_axis_is_left_alone(axis: str) -> None:
    result = apply_pass(model_of(ATTENTION.replace("AXIS", axis)), MoveNanGuard())
    assert not result.modified
    assert "last axis" in result.rejects[0].reason


def constants() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=8).astype(np.float32) for name in ("gamma", "beta")}


def test_a_sum_is_the_addition_bit_for_bit_and_not_fused() -> None:
    model = model_of(NORM, **constants())
    after = rewritten(model, SumBeforeNorm())
    random = np.random.default_rng(1)
    feeds = {name: random.normal(size=(1, 6, 8)).astype(np.float32) for name in "xz"}
    feeds["x"][0, 0], feeds["z"][0, 0] = -0.0, -0.0
    feeds["x"][0, 1, 0], feeds["x"][0, 2, 3], feeds["x"][0, 3] = np.nan, np.inf, 3e38
    old, new = outputs_of(model, feeds)["y"], outputs_of(after, feeds)["y"]
    assert old.tobytes() == new.tobytes()
    fused = {name: "SkipLayerNormalization" in ops_of(optimized_graph(each))
             for name, each in (("before", model), ("after", after))}  # fmt: skip
    assert fused == {"before": True, "after": False}


def test_gelu_becomes_one_node_within_rounding() -> None:
    model = model_of(ERF)
    after = rewritten(model, FuseGelu())
    assert [op for op in ops_of(after) if op != "Constant"] == ["Gelu"]
    assert after.opset_imports["com.microsoft"] == 1
    x = np.concatenate([np.linspace(-12, 12, 792), [-0.0, 0.0, 1e-30, -1e-30, 1e30, -1e30, 50.0, -50.0]])
    feeds = {"x": x.reshape(-1, 8).astype(np.float32)}
    old, new = outputs_of(model, feeds)["y"], outputs_of(after, feeds)["y"]
    np.testing.assert_allclose(new, old, rtol=1e-6, atol=2e-6)

"""Residuals subtract what was negated, outliers are sliced off the front: the same numbers, other kernels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.passes.layout.pick_by_slice import PickBySlice
from onnxq.passes.layout.sub_before_norm import SubBeforeNorm
from onnxq.pipeline import apply_pass
from onnxq.runtime import SessionSettings, open_session, optimized_graph
from tests.graphs import model_of, ops_of, outputs_of

WIDTH = 16
PRODUCT = (
    "q = QuantizeLinear(z, step, middle) "
    "p = com.microsoft.MatMulIntegerToFloat(q, w, step, steps, middle, none, b) "
)


def residual(body: str, seed: int = 0, outputs: str = "float[B,S,16] y") -> ir.Model:
    """Integer product of z, residual x, norm; w is int8, v a float weight."""
    random = np.random.default_rng(seed)
    constants = {
        "w": random.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8),
        "v": random.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "steps": random.uniform(0.001, 0.01, WIDTH).astype(np.float32),
        "b": random.normal(size=WIDTH).astype(np.float32),
        "gamma": random.normal(size=WIDTH).astype(np.float32),
        "step": np.array(0.02, np.float32),
        "middle": np.array(120, np.uint8),
        "none": np.array(0, np.int8),
    }
    model = model_of(f"g (float[B,S,16] x, float[B,S,16] z) => ({outputs}) {{ {body} }}", **constants)
    model.opset_imports["com.microsoft"] = 1
    return model


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(2, 3, WIDTH)).astype(np.float32) for name in "xz"}


@settings(max_examples=10, deadline=None)
@given(
    order=st.permutations(["p", "x", "m"]),
    spelling=st.sampled_from(["m = MatMul(z, v) ", "l = MatMul(z, v) m = Add(l, b) "]),
    seed=st.integers(0, 99),
)
def test_the_bits_stay_whatever_is_added_in_whatever_order(
    order: list[str], spelling: str, seed: int
) -> None:
    model = residual(f"{PRODUCT}{spelling}s = Sum({', '.join(order)}) y = LayerNormalization(s, gamma)", seed)
    result = apply_pass(model, SubBeforeNorm())
    if (
        order[2] == "x"
    ):  # two products would have to be added first, and then an Add would stand before the norm
        assert not result.modified
        return
    assert ops_of(result.model).count("Sub") == 2
    old, new = outputs_of(model, inputs(seed)), outputs_of(result.model, inputs(seed))
    assert old["y"].tobytes() == new["y"].tobytes()


def test_the_runtime_fuses_neither() -> None:
    model = residual(f"{PRODUCT}s = Sum(p, x) y = LayerNormalization(s, gamma)")
    after = apply_pass(model, SubBeforeNorm()).model
    ops = ops_of(optimized_graph(after))
    assert "SkipLayerNormalization" not in ops
    assert "Sub" in ops


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"{PRODUCT}s = Sum(p, x) n = LayerNormalization(s, gamma) y = Add(n, p)", "cannot be changed"),
        (f"{PRODUCT}t = Tanh(p) s = Sum(t, x) y = LayerNormalization(s, gamma)", "cannot be changed"),
        (f"{PRODUCT}s = Add(p, x) y = LayerNormalization(s, gamma)", "no Sum"),
    ],
)
def test_what_is_read_elsewhere_or_computed_otherwise_stays(body: str, reason: str) -> None:
    result = apply_pass(residual(body), SubBeforeNorm())
    assert not result.modified
    assert reason in result.rejects[0].reason


@settings(max_examples=10, deadline=None)
@given(
    picks=st.lists(st.integers(-24, 23), min_size=1, max_size=6, unique_by=lambda pick: pick % 24),
    seed=st.integers(0, 99),
)
def test_picked_channels_come_to_the_front(picks: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    constants = {
        "w": random.normal(size=(8, 24)).astype(np.float32),
        "b": random.normal(size=24).astype(np.float32),
        "v": random.normal(size=(24, 8)).astype(np.float32),
        "o": random.normal(size=(len(picks), 8)).astype(np.float32),
        "picks": np.array(picks, np.int64),
    }
    body = (
        "m = MatMul(x, w) a = Add(m, b) h = com.microsoft.Gelu(a) c = Gather<axis = 2>(h, picks) "
        "n = MatMul(c, o) d = MatMul(h, v) y = Add(d, n)"
    )
    model = model_of(f"g (float[B,S,8] x) => (float[B,S,8] y) <float[B,S,24] h> {{ {body} }}", **constants)
    model.opset_imports["com.microsoft"] = 1
    result = apply_pass(model, PickBySlice())
    assert result.modified
    assert "Gather" not in ops_of(result.model)
    feeds = {"x": random.normal(size=(2, 5, 8)).astype(np.float32)}
    old, new = outputs_of(model, feeds)["y"], outputs_of(result.model, feeds)["y"]
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)


def test_reordered_values_lose_the_names_under_which_statistics_know_them() -> None:
    body = "m = MatMul(x, w) h = Relu(m) c = Gather<axis = 2>(h, picks) d = MatMul(h, v) "
    text = f"{body}y = Concat<axis = 2>(c, d)"
    weights = {"w": np.ones((4, 6), np.float32), "v": np.ones((6, 4), np.float32), "picks": np.array([5, 2])}
    model = model_of(f"g (float[B,S,4] x) => (float[B,S,6] y) <float[B,S,6] h> {{ {text} }}", **weights)
    after = apply_pass(model, PickBySlice()).model
    names = {value.name for node in after.graph for value in node.outputs}
    assert "h" not in names
    assert "c" in names
    open_session(after, SessionSettings())

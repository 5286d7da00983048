"""Masks get a bound only where the keys that they hide stay hidden behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import onnxq.demo
from onnxq.api import optimize
from onnxq.recipe import OptimizeSettings
from tests.graphs import model_of, ops_of

T, C = 8, 32
BODY = """
    q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
    a = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, causal)
    y = MatMul(a, wo)
"""


def decoder(spread: float) -> ir.Model:
    """A causal attention whose scores differ by a few times `spread`."""
    random = np.random.default_rng(0)
    arrays = {
        f"w{name}": (random.normal(size=(C, C)) / np.sqrt(C)).astype(np.float32)
        for name in ("q", "k", "v", "o")
    }
    arrays["wq"] *= np.float32(spread)
    arrays["causal"] = np.triu(np.full((T, T), -np.inf, np.float32), 1)
    model = model_of(f"g (float[B,{T},{C}] x) => (float[B,{T},{C}] y) {{ {BODY} }}", **arrays)
    model.opset_imports[""] = 23
    return model


@pytest.mark.parametrize(("spread", "is_bound"), [(1.0, True), (100.0, False)])
def test_a_mask_gets_a_bound_only_where_that_shows_no_hidden_key(spread: float, is_bound: bool) -> None:
    """With scores that differ by hundreds, what comes behind a token would outweigh what it may see."""
    data = {"x": np.random.default_rng(1).normal(size=(64, T, C)).astype(np.float32)}
    settings = OptimizeSettings(target="x86-vnni", effort="fast", verify="never", threads=1)
    result = optimize(decoder(spread), data, settings=settings)
    assert ("Max" in ops_of(result.model)) is is_bound
    assert result.report.fidelity[0].sqnr_db > 20


def test_samples_are_not_divided_where_there_is_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes a run over all of them, which nothing else needs in a hurry."""
    monkeypatch.setattr("onnxq.api.stage.split_unlike", lambda *_, **__: pytest.fail("divided"))
    settings = OptimizeSettings(target="x86-vnni", effort="fast", verify="never", threads=1)
    optimize(onnxq.demo.model_path(), onnxq.demo.load_calibration(), settings=settings)

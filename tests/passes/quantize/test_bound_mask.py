"""Masks of -inf get a bound that no float can tell, and that keeps hidden keys from showing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.quantize.bound_mask import BoundMask
from onnxq.pipeline import apply_pass
from tests.graphs import model_of, ops_of, outputs_of
from tests.passes.layout.test_attention import attention, fused

ATTENTION = "Attention<q_num_heads = 2, kv_num_heads = 2>"
HIDDEN = 9  # of 16 keys


def masked(*, layers: int = 1, low: str = "-inf") -> ir.Model:
    body = "m = Where(b, zero, low) y0 = Identity(q) " + " ".join(
        f"y{layer + 1} = {ATTENTION}(y{layer}, k, v, m)" for layer in range(layers)
    )
    made = model_of(
        f"g (float[B,S,8] q, float[B,T,8] k, float[B,T,8] v, bool[B,1,S,T] b) => (float[B,S,8] y{layers}) "
        f"<float zero = {{0.0}}, float low = {{{low}}}> {{ {body} }}"
    )
    made.opset_imports[""] = 23
    return made


def feeds(spread: float) -> dict[str, np.ndarray]:
    """Scores of `spread` times a normal number; the last keys are hidden from all."""
    random = np.random.default_rng(3)
    made = {name: random.normal(size=(2, 16, 8)).astype(np.float32) for name in "qkv"}
    made["q"] *= np.float32(spread)
    made["v"][:, HIDDEN:] = 1e6  # would show
    made["b"] = np.broadcast_to(np.arange(16) < HIDDEN, (2, 1, 16, 16))
    return made


@pytest.mark.parametrize("low", ["-inf", "-10000.0", "-3.4028235e38"])
def test_hidden_keys_stay_hidden(low: str) -> None:
    model = masked(low=low)
    result = apply_pass(model, BoundMask())
    assert result.modified, result.rejects
    for spread in (0.1, 1.0, 3.0):
        (old,) = outputs_of(model, feeds(spread)).values()
        (new,) = outputs_of(result.model, feeds(spread)).values()
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-6)


def test_the_bound_is_what_keeps_them_hidden() -> None:
    model = masked()
    after = apply_pass(model, BoundMask(lowest=-10.0)).model
    (old,) = outputs_of(model, feeds(1.0)).values()
    (new,) = outputs_of(after, feeds(1.0)).values()
    assert np.abs(new - old).max() > 1


def test_layers_share_one_bound() -> None:
    result = apply_pass(masked(layers=3), BoundMask())
    assert ops_of(result.model).count("Max") == 1
    assert not apply_pass(result.model, BoundMask()).modified


def test_rows_that_see_no_key_stay_zero_where_they_are_guarded() -> None:
    model = attention(mask="bool[B,1,S,T] b", add="w@ = Where(b, zero, low) a@ = Add(s@, w@)")
    after = apply_pass(fused(model), BoundMask())
    assert after.modified, after.rejects
    random = np.random.default_rng(0)
    made = {name: random.normal(size=(2, 3, 8)).astype(np.float32) for name in "qkv"}
    made["b"] = random.random((2, 1, 3, 3)) < 0.5
    made["b"][0, 0, 1] = False
    (old,), (new,) = outputs_of(model, made).values(), outputs_of(after.model, made).values()
    assert not new[0, 1].any()
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)

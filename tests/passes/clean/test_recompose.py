"""Recompositions in half precision, beside other readers, and with constants that are not theirs alone."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.clean.evidence import graph
from onnxq.passes.clean.infer_shapes import InferShapes
from onnxq.passes.clean.recompose import PRECISION
from onnxq.passes.clean.recompose_gelu import RecomposeGelu
from onnxq.passes.clean.recompose_layer_norm import RecomposeLayerNorm
from onnxq.passes.clean.recompose_rms_norm import RecomposeRMSNorm
from tests.passes.clean.rewriting import assert_close, compute, feeds_for, ops_of, read, rewrite

SCALARS = "float two = {2}, float e = {0.00001}"
VECTORS = "float[4] g = {1, 2, 0.5, -1}, float[4] b = {0, 1, 2, 3}"
HALVES = "float16[4] g = {15360, 16384, 14336, 15360}, float16[4] b = {0, 15360, 16384, 0}"
"""As bits, which is how the text form has them: scale 1, 2, 0.5, 1 and shift 0, 1, 2, 0."""
CENTRE = "m = ReduceMean<axes = [-1]>(x)  d = Sub(x, m)"
ROOT = "q = Pow(d, two)  v = ReduceMean<axes = [-1]>(q)  s = Add(v, e)  r = Sqrt(s)  n = Div(d, r)"


def test_a_half_precision_norm_computed_in_float_becomes_one_operator():
    text = graph(
        f"w = Cast<to = 1>(x)  m = ReduceMean<axes = [-1]>(w)  d = Sub(w, m)  {ROOT}"
        "  k = Cast<to = 10>(n)  h = Mul(k, g)  y = Add(h, b)",
        "float16[N,4] x",
        "float16[N,4] y",
        constants=f"{SCALARS}, {HALVES}, float[N,4] w",
    )
    before = rewrite(InferShapes(), read(text)).model
    after = rewrite(RecomposeLayerNorm(), before).model
    assert ops_of(after) == ["LayerNormalization"]
    assert after.graph[0].inputs[0] is after.graph.inputs[0]
    assert_close(before, after)


def test_a_norm_whose_parts_are_read_keeps_them():
    text = graph(
        f"{CENTRE}  {ROOT}  h = Mul(n, g)  y = Add(h, b)  z = Neg(n)",
        outputs="float[N,4] y, float[N,4] z, float[N,M] v",
        constants=f"{SCALARS}, {VECTORS}",
    )
    before = read(text)
    after = rewrite(RecomposeLayerNorm(), before).model
    assert "LayerNormalization" in ops_of(after)
    assert "Add" in ops_of(after)  # of epsilon; the one of the shift went
    assert ops_of(after).count("Add") == 1
    assert_close(before, after)


def test_constants_are_read_where_they_are():
    text = graph(
        f"{CENTRE}  {ROOT}  h = Mul(n, g)  y = Add(h, b)  z = Mul(x, g)",
        outputs="float[N,4] y, float[N,4] z",
        constants=f"{SCALARS}, {VECTORS}",
    )
    after = rewrite(RecomposeLayerNorm(), read(text)).model
    assert set(after.graph.initializers) == {"g", "b"}


def test_a_scale_of_more_axes_is_flattened():
    text = graph(
        f"{CENTRE}  {ROOT}  y = Mul(n, g)",
        "float[N,3,4] x",
        "float[N,3,4] y",
        constants=f"{SCALARS}, float[1,1,4] g = {{1, 2, 3, 4}}",
    )
    before = read(text)
    after = rewrite(RecomposeLayerNorm(), before).model
    assert ops_of(after) == ["LayerNormalization"]
    assert_close(before, after)


def test_a_scale_that_callers_set_is_left_to_them():
    text = graph(
        f"{CENTRE}  {ROOT}  y = Mul(n, g)", "float[N,4] x, float[4] g = {1, 2, 3, 4}", constants=SCALARS
    )
    result = rewrite(RecomposeLayerNorm(), read(text))
    assert not any(
        "g" in (value.name or "")
        for node in result.model.graph
        for value in node.inputs[1:]
        if node.op_type == "LayerNormalization"
    )
    assert_close(read(text), result.model)


def test_epsilon_is_kept_exactly():
    text = graph(
        f"{CENTRE}  {ROOT}  y = Mul(n, g)", constants=f"float two = {{2}}, float e = {{0.37}}, {VECTORS}"
    )
    (node,) = rewrite(RecomposeLayerNorm(), read(text)).model.graph
    assert np.float32(node.attributes["epsilon"].as_float()) == np.float32(0.37)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_norms_agree_at_every_scale_of_the_input(scale):
    text = graph(f"{CENTRE}  {ROOT}  h = Mul(n, g)  y = Add(h, b)", constants=f"{SCALARS}, {VECTORS}")
    before = read(text)
    after = rewrite(RecomposeLayerNorm(), before).model
    feeds = {name: array * np.float32(scale) for name, array in feeds_for(before, free=64).items()}
    (old,), (new,) = compute(before, feeds), compute(after, feeds)
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)


def test_an_rms_norm_followed_by_a_shift_keeps_the_shift():
    text = graph(
        "q = Mul(x, x)  v = ReduceMean(q, last)  s = Add(v, e)  r = Sqrt(s)  n = Div(x, r)"
        "  h = Mul(n, g)  y = Add(h, b)",
        opset=23,
        constants=f"{SCALARS}, {VECTORS}, int64[1] last = {{-1}}",
    )
    before = read(text)
    result = rewrite(RecomposeRMSNorm(), before)
    assert ops_of(result.model) == ["RMSNormalization", "Add"]
    assert_close(before, result.model)


def test_a_gelu_that_changes_the_type_is_left_with_the_reason():
    text = graph(
        "w = Cast<to = 1>(x)  d = Div(w, root)  f = Erf(d)  a = Add(f, one)  m = Mul(w, a)  h = Mul(m, half)"
        "  y = Cast<to = 10>(h)",
        "float16[N,4] x",
        "float16[N,4] y",
        opset=20,
        constants="float root = {1.4142135}, float one = {1}, float half = {0.5}, float[N,4] w, float[N,4] h",
    )
    before = read(text)
    result = rewrite(RecomposeGelu(), before)
    reasons = [reject.reason for reject in result.rejects]
    assert result.modified or PRECISION in reasons
    assert_close(before, result.model)

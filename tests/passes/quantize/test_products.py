"""Products of activations: where Q and DQ go, of what type, and that moving them changes nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import collect, open_data
from onnxq.ir.walk import constant_of
from onnxq.passes.clean.infer_shapes import InferShapes
from onnxq.passes.layout.compute_picked import ComputePicked
from onnxq.passes.layout.fold_factor import FoldFactor
from onnxq.passes.layout.hoist_rounding import HoistRounding
from onnxq.passes.quantize.products import QuantizeProducts
from onnxq.pipeline import apply_pass
from onnxq.statistics import Statistic
from tests.graphs import check, model_of, ops_of, outputs_of

DRAW = np.random.default_rng(8)
FEEDS = {"x": DRAW.normal(size=(2, 6, 16)).astype(np.float32)}
HEADS = np.array([0, 0, 4, 4], np.int64)
ROWS = np.array([0, 0, 16], np.int64)


def attention(factor: str = "s = Mul(p, c)") -> ir.Model:
    """One block of four heads, the factor on the scores where `factor` puts it."""
    weights = {name: DRAW.normal(size=(16, 16)).astype(np.float32) / 3 for name in ("wq", "wk", "wv")}
    constants = weights | {"bq": DRAW.normal(size=16).astype(np.float32), "heads": HEADS, "rows": ROWS}
    declared = ", ".join(
        f"{'float' if array.dtype == np.float32 else 'int64'}[{','.join(map(str, array.shape))}] {name}"
        for name, array in constants.items()
    )
    body = f"""
        mq = MatMul(x, wq)  q0 = Add(mq, bq)  k0 = MatMul(x, wk)  v0 = MatMul(x, wv)
        q1 = Reshape(q0, heads)  k1 = Reshape(k0, heads)  v1 = Reshape(v0, heads)
        q = Transpose<perm = [0, 2, 1, 3]>(q1)  k = Transpose<perm = [0, 2, 3, 1]>(k1)
        v = Transpose<perm = [0, 2, 1, 3]>(v1)
        p = MatMul(q, k)  {factor}  r = Softmax(s)  o = MatMul(r, v)
        t = Transpose<perm = [0, 2, 1, 3]>(o)  y = Reshape(t, rows)"""
    text = f"g (float[2,6,16] x) => (float[2,6,16] y) <float c = {{0.5}}, {declared}> {{ {body} }}"
    return apply_pass(model_of(text, **constants), InferShapes()).model


def quantized(model: ir.Model, settings: QuantizeProducts | None = None) -> ir.Model:
    settings = settings or QuantizeProducts()
    names = {str(value.name) for value in settings.observe(model)}
    statistics = collect(model, open_data([FEEDS], model), {Statistic.CHANNEL_EXTREMES: names})
    return apply_pass(model, settings, statistics).model


def zeros(model: ir.Model) -> list[tuple[str, int]]:
    """Type and value of the zero points, in the order of the graph."""
    found = [constant_of(node.inputs[2]) for node in model.graph if node.op_type == "QuantizeLinear"]
    return [(zero.dtype.name, int(zero)) for zero in found if zero is not None]


def difference(one: ir.Model, other: ir.Model) -> float:
    old, new = (outputs_of(model, FEEDS)["y"] for model in (one, other))
    return float(np.abs(old - new).max() / np.abs(old).max())


@pytest.mark.parametrize(("signed", "softmax"), [(False, "uint8"), (True, "int8")])
def test_both_products_are_rounded_around_zero(signed: bool, softmax: str) -> None:
    model = attention()
    rounded = quantized(model, QuantizeProducts(signed=signed))
    check(rounded)
    assert zeros(rounded) == [("int8", 0), ("int8", 0), (softmax, 0), ("int8", 0)]
    assert 0 < difference(model, rounded) < 0.05


def test_linears_and_what_is_named_stay_as_they_are() -> None:
    model = attention()
    product = next(node for node in model.graph if node.outputs[0].name == "p")
    product.name = "scores"
    rounded = quantized(model, QuantizeProducts(skip=("sco*",)))
    assert ops_of(rounded).count("QuantizeLinear") == 2
    assert ops_of(quantized(rounded)).count("QuantizeLinear") == 4


def test_rounding_moves_in_front_of_moves_bit_for_bit() -> None:
    rounded = quantized(attention())
    hoisted = apply_pass(rounded, HoistRounding()).model
    check(hoisted)
    assert difference(rounded, hoisted) == 0
    before = [node.inputs[0].producer() for node in hoisted.graph if node.op_type == "QuantizeLinear"]
    assert sorted(node.op_type for node in before if node is not None) == [
        "Add",
        "MatMul",
        "MatMul",
        "Softmax",
    ]


@pytest.mark.parametrize(
    "factor", ["s = Mul(p, c)", "s = Div(p, c)", "s = Mul(c, p)"], ids=["mul", "div", "swapped"]
)
def test_the_factor_of_the_scores_goes_into_the_queries(factor: str) -> None:
    model = attention(factor)
    folded = apply_pass(model, FoldFactor()).model
    check(folded)
    assert "Mul" not in ops_of(folded)
    assert "Div" not in ops_of(folded)
    assert difference(model, folded) < 1e-5


def test_a_factor_that_others_see_stays() -> None:
    model = attention("s = Mul(p, c)  z = Relu(p)  ")
    result = apply_pass(model, FoldFactor())
    assert not result.modified
    assert "something else reads what is scaled" in {reject.reason for reject in result.rejects}


def test_picked_channels_are_computed_by_themselves() -> None:
    constants = {
        "w": DRAW.normal(size=(16, 64)).astype(np.float32),
        "b": DRAW.normal(size=64).astype(np.float32),
        "v": DRAW.normal(size=(64, 8)).astype(np.float32),
        "u": DRAW.normal(size=(3, 8)).astype(np.float32),
        "few": np.array([5, 60, 17], np.int64),
    }
    text = """g (float[2,6,16] x) => (float[2,6,8] y)
        <float[16,64] w, float[64] b, float[64,8] v, float[3,8] u, int64[3] few> {
        m = MatMul(x, w)  a = Add(m, b)  h = Tanh(a)  i = Relu(a)  o = Gather<axis = -1>(i, few)
        s = MatMul(o, u)  p = MatMul(i, v)  y = Add(s, p) }"""
    model = model_of(text, **constants)
    apart = apply_pass(model, ComputePicked()).model
    check(apart)
    assert "Gather" not in ops_of(apart)
    assert ops_of(apart).count("MatMul") == 4
    assert difference(model, apart) < 1e-5

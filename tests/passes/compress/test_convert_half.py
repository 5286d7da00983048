"""What becomes float16, what does not, and what is left of casts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import collect, open_data
from onnxq.passes.clean.infer_shapes import InferShapes
from onnxq.passes.compress.convert_half import ConvertHalf
from onnxq.pipeline import apply_pass
from onnxq.statistics import Statistic
from tests.graphs import check, model_of, ops_of, outputs_of

DRAW = np.random.default_rng(3)
W = DRAW.normal(size=(8, 8)).astype(np.float32) / 3
X = DRAW.normal(size=(5, 8)).astype(np.float32)
PORTS = "(float[N,8] x) => (float[N,8] y)"


def halved(body: str, feeds: dict[str, np.ndarray] | None = None, half: ConvertHalf | None = None,
           ports: str = PORTS, **constants: np.ndarray) -> tuple[ir.Model, ir.Model]:  # fmt: skip
    """A model, and the same in float16 wherever it fits the data."""
    declared = ", ".join(f"{_kind(array)} {name}" for name, array in constants.items())
    model = model_of(f"g {ports} <{declared}> {{ {body} }}", **constants)
    model = apply_pass(model, InferShapes()).model
    half = half or ConvertHalf()
    names = {str(value.name) for value in half.observe(model)}
    data = open_data([feeds or {"x": X}], model)
    statistics = collect(model, data, {Statistic.CHANNEL_EXTREMES: names})
    return model, apply_pass(model, half, statistics).model


def _kind(array: np.ndarray) -> str:
    sizes = f"[{', '.join(map(str, array.shape))}]" if array.ndim else ""
    return {"float32": "float", "int64": "int64"}[array.dtype.name] + sizes


def types_of(model: ir.Model, op_type: str) -> set[ir.DataType | None]:
    return {node.inputs[0].dtype for node in model.graph if node.op_type == op_type}


def test_a_chain_has_casts_at_its_ends_alone() -> None:
    before, after = halved("a = MatMul(x, w)  b = Relu(a)  c = Add(b, a)  y = MatMul(c, w)", w=W)
    check(after)
    assert sorted(ops_of(after)) == ["Add", "Cast", "Cast", "MatMul", "MatMul", "Relu"]
    assert types_of(after, "MatMul") == {ir.DataType.FLOAT16}
    assert [value.dtype for value in (*after.graph.inputs, *after.graph.outputs)] == [ir.DataType.FLOAT] * 2
    old, new = (outputs_of(each, {"x": X})["y"] for each in (before, after))
    assert np.abs(old - new).max() < 5e-3 * np.abs(old).max()


def test_one_cast_serves_all_readers() -> None:
    _, after = halved("a = MatMul(x, w)  b = Relu(x)  c = Add(a, b)  y = Sub(c, x)", w=W)
    check(after)
    assert ops_of(after).count("Cast") == 2


def test_what_overflows_stays_float32_and_what_is_around_it_does_not() -> None:
    large = np.float32(3000)
    body = "a = MatMul(x, w)  b = Mul(a, k)  c = Mul(b, b)  d = Div(c, m)  y = Relu(d)"
    before, after = halved(body, w=W, k=np.array(large), m=np.array(large * large))
    check(after)
    [square] = [node for node in after.graph if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]]
    assert square.inputs[0].dtype == ir.DataType.FLOAT
    assert types_of(after, "Relu") == types_of(after, "MatMul") == {ir.DataType.FLOAT16}
    old, new = (outputs_of(each, {"x": X})["y"] for each in (before, after))
    assert np.isfinite(new).all()
    assert np.abs(old - new).max() < 2e-2 * np.abs(old).max()


def test_headroom_decides_what_counts_as_close_to_overflow() -> None:
    constant = np.array(np.float32(60000 / np.abs(X).max() / 2))
    for headroom, kinds in ((1.0, {ir.DataType.FLOAT16}), (4.0, {ir.DataType.FLOAT})):
        _, after = halved("a = Mul(x, k)  y = Neg(a)", half=ConvertHalf(headroom=headroom), k=constant)
        assert types_of(after, "Neg") == kinds


@pytest.mark.parametrize("lowest", [-3.4028235e38, -1e12, -np.inf])
def test_masks_are_cut_and_mask_all_the_same(lowest: float) -> None:
    keep = (DRAW.random((5, 8)) > 0.4).astype(np.float32)
    keep[:, 0] = 1
    keep[4] = 0  # a row of nothing but padding
    if np.isinf(lowest):
        keep[4] = 1
    body = "no = Equal(keep, zero)  m = Where(no, low, zero)  s = MatMul(x, w)  a = Add(s, m)  y = Softmax(a)"
    feeds = {"x": X, "keep": keep}
    before, after = halved(
        body,
        feeds,
        ports="(float[N,8] x, float[N,8] keep) => (float[N,8] y)",
        w=W,
        low=np.array(lowest, np.float32),
        zero=np.array(0, np.float32),
    )
    check(after)
    assert types_of(after, "Softmax") == {ir.DataType.FLOAT16}
    old, new = (outputs_of(each, feeds)["y"] for each in (before, after))
    assert np.isfinite(new).all()
    masked = (keep == 0) & keep.any(axis=1, keepdims=True)
    assert not new[masked].any()
    assert np.abs(old - new)[keep.any(axis=1)].max() < 2e-3


def test_what_is_kept_is_kept() -> None:
    body = "a = MatMul(x, w)  n = LayerNormalization(a, g)  y = MatMul(n, w)"
    gamma = np.ones(8, np.float32)
    _, after = halved(body, half=ConvertHalf(keep=("LayerNormalization",)), w=W, g=gamma)
    check(after)
    assert types_of(after, "LayerNormalization") == {ir.DataType.FLOAT}
    assert types_of(after, "MatMul") == {ir.DataType.FLOAT16}
    _, after = halved(body, w=W, g=gamma)
    assert types_of(after, "LayerNormalization") == {ir.DataType.FLOAT16}


def test_integers_pass_by() -> None:
    shape = np.array([-1, 4], np.int64)
    _, after = halved("t = Reshape(x, s)  u = Shape(t)  v = Cast<to = 1>(u)  w = ReduceSum<keepdims = 0>(v)"
                      "  y = Mul(x, w)", s=shape)  # fmt: skip
    check(after)
    assert types_of(after, "Reshape") == {ir.DataType.FLOAT16}
    assert {node.inputs[0].dtype for node in after.graph if node.op_type == "Shape"} <= {
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
    }
    sizes = outputs_of(after, {"x": X})["y"]
    assert np.allclose(sizes, X * 14, rtol=2e-3)


def test_a_resize_keeps_its_scales_in_float32() -> None:
    """However often it is looked at."""
    feeds = {"x": DRAW.normal(size=(1, 2, 3, 3)).astype(np.float32)}
    _, after = halved(
        'a = Relu(x)  b = Resize<mode = "nearest">(a, , scales)  y = Relu(b)',
        feeds,
        ports="(float[1,2,3,3] x) => (float[1,2,6,6] y)",
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    check(after)
    (resize,) = (node for node in after.graph if node.op_type == "Resize")
    assert resize.inputs[0] is not None
    assert resize.inputs[2] is not None
    assert (resize.inputs[0].dtype, resize.inputs[2].dtype) == (ir.DataType.FLOAT16, ir.DataType.FLOAT)
    assert outputs_of(after, feeds)["y"].shape == (1, 2, 6, 6)

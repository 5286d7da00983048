"""Integer convolutions: close to the float ones, on codes from end to end, and only where they are wanted."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import DataOptions, collect, open_data
from onnxq.contract import AnyPass
from onnxq.passes import registry
from onnxq.passes.quantize.convolutions import QuantizeConvs
from onnxq.pipeline import PipelineResult, run
from onnxq.runtime import optimized_graph
from tests.graphs import model_of, ops_of, outputs_of

DECODER = (
    "g (float[B,30,16] x) => (float[B,1,20,24] y) { t = Transpose<perm = [0, 2, 1]>(x) "
    "n = Constant<value = int64[4] {-1, 16, 5, 6}>() r = Reshape(t, n) "
    "c = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(r, first, b24) "
    "m = BatchNormalization(c, gamma, beta, mean, variance) a = Relu(m) "
    "d = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(a, second, b64) e = Relu(d) "
    "y = Conv(e, last, b1) }"
)
PLAIN = (
    "g (float[B,8,7,9] x) => (float[B,C,H,W] y) { c = Conv<strides = [STRIDE], dilations = [DILATION], "
    "pads = [PADS]>(x, w, b) r = Relu(c) y = Conv(r, point) }"
)


def numbers(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes.items():
        fan = np.prod(shape[1:]) if len(shape) > 1 else 4
        made[name] = (draw.normal(size=shape) / np.sqrt(fan)).astype(np.float32)
    return made


def decoder() -> ir.Model:
    made = numbers(
        first=(16, 24, 4, 4), second=(24, 64, 4, 4), last=(1, 64, 1, 1), b24=(24,), b64=(64,), b1=(1,)
    )
    norms = numbers(1, gamma=(24,), beta=(24,), mean=(24,))
    return model_of(DECODER, **made, **norms, variance=np.full(24, 0.8, np.float32))


def go(model: ir.Model, x: np.ndarray, *passes: AnyPass | str) -> PipelineResult:
    source = open_data({"x": x}, model, DataOptions())
    listed = [registry()[each]() if isinstance(each, str) else each for each in passes]
    return run(model, listed, gather=lambda state, wanted: collect(state, source, wanted), verify="never")


def decibels(model: ir.Model, other: ir.Model, x: np.ndarray) -> float:
    old, new = outputs_of(model, {"x": x})["y"], outputs_of(other, {"x": x})["y"]
    assert old.shape == new.shape
    return float(10 * np.log10((old**2).sum() / ((new - old) ** 2).sum()))


def test_a_decoder_stays_on_codes_from_its_first_product_to_its_last() -> None:
    model = decoder()
    x = np.random.default_rng(2).normal(size=(6, 30, 16)).astype(np.float32)
    respelled = ("infer-shapes", "fold-batch-norm", "phase-transposed-convs", "narrow-before-upsampling")
    finished = ("move-codes", "cancel-across", "cancel-transposes")
    result = go(model, x, *respelled, QuantizeConvs(), *finished)
    ops = ops_of(result.model)
    assert ops.count("QLinearConv") == 2
    assert ops.count("MatMulIntegerToFloat") == 1
    assert ops.count("QuantizeLinear") == 1
    assert not {"DequantizeLinear", "Relu", "Conv", "ConvTranspose", "BatchNormalization"} & set(ops)
    # One inside the rearrangement between the two, one behind the last product, on its four columns.
    assert ops.count("Transpose") == 2
    assert decibels(model, result.model, x) > 35
    assert ops_of(optimized_graph(result.model)).count("QLinearConv") == 2


@pytest.mark.parametrize("stride", ["1, 1", "2, 2", "1, 2"])
@pytest.mark.parametrize("dilation", ["1, 1", "2, 1"])
@pytest.mark.parametrize("pads", ["0, 0, 0, 0", "1, 1, 1, 1", "2, 0, 1, 3"])
def test_strides_dilations_and_pads(stride: str, dilation: str, pads: str) -> None:
    text = PLAIN.replace("STRIDE", stride).replace("DILATION", dilation).replace("PADS", pads)
    model = model_of(text, **numbers(w=(32, 8, 3, 2), b=(32,), point=(16, 32, 1, 1)))
    # Far from zero, so that padding with anything but zero shows.
    x = np.random.default_rng(3).normal(2.0, 1.0, size=(4, 8, 7, 9)).astype(np.float32)
    result = go(model, x, QuantizeConvs(), "move-codes", "cancel-across", "cancel-transposes")
    ops = ops_of(result.model)
    assert (ops.count("QLinearConv"), ops.count("MatMulIntegerToFloat")) == (1, 1)
    assert decibels(model, result.model, x) > 33


def test_a_result_that_is_read_as_floats_is_rounded_only_if_told() -> None:
    text = "g (float[B,8,7,9] x) => (float[B,C,H,W] y) { c = Conv(x, w) y = Tanh(c) }"
    model = model_of(text, **numbers(w=(32, 8, 3, 3)))
    x = np.random.default_rng(4).normal(size=(4, 8, 7, 9)).astype(np.float32)
    held = go(model, x, QuantizeConvs())
    assert "Conv" in ops_of(held.model)
    (reject,) = held.results[0].rejects
    assert reject.reason == "its result is read as floats"
    told = go(model, x, QuantizeConvs(round_outputs=True))
    assert "QLinearConv" in ops_of(told.model)
    assert decibels(model, told.model, x) > 33


def test_convolutions_are_chosen_by_the_names_that_they_had() -> None:
    model = decoder()
    for node in model.graph:
        node.name = str(node.outputs[0].name)
    x = np.random.default_rng(5).normal(size=(2, 30, 16)).astype(np.float32)
    respelled = ("infer-shapes", "fold-batch-norm", "phase-transposed-convs")
    for chosen, count in (
        (QuantizeConvs(skip=("d",)), 1),
        (QuantizeConvs(skip=("?",)), 0),
        (QuantizeConvs(only=("c", "d")), 2),
        (QuantizeConvs(least=10_000), 1),
    ):
        result = go(model, x, *respelled, chosen)
        assert ops_of(result.model).count("QLinearConv") == count
        assert ops_of(result.model).count("Conv") == 3 - count
        assert decibels(model, result.model, x) > 35


def test_fewer_bits_of_weights_are_fewer_codes() -> None:
    model = model_of(
        PLAIN.replace("STRIDE", "1, 1").replace("DILATION", "1, 1").replace("PADS", "0, 0, 0, 0"),
        **numbers(w=(32, 8, 3, 2), b=(32,), point=(16, 32, 1, 1)),
    )
    x = np.random.default_rng(6).normal(size=(2, 8, 7, 9)).astype(np.float32)
    result = go(model, x, QuantizeConvs(weight_bits=7))
    codes = [
        each.const_value.numpy() for each in result.model.graph.initializers.values() if each.const_value
    ]
    most = max(int(np.abs(each.astype(np.int32)).max()) for each in codes if each.dtype == np.int8)
    assert most == 63

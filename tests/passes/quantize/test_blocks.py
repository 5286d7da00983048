"""Products with weights in blocks: what is packed, and what the runtime computes with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.quantize.block_codes import (
    block_grid,
    pack,
    pack_blocks,
    round_activations,
    unpack,
)
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.rounding import Grid, round_nearest
from onnxq.pipeline import PassResult, apply_pass, run
from onnxq.runtime import confirm_kernels, expected_kernels, open_session, optimized_graph
from onnxq.statistics import SecondMoments, Statistic, Statistics, TensorStatistics
from tests.graphs import model_of as model_of_text
from tests.graphs import outputs_of
from tests.passes.quantize.integers import BODIES, CASES, SHAPES, K, Reference, activation, model_of

FORMS = [(8, 16), (8, 32), (8, 256), (4, 16), (4, 64), (4, 128), (2, 32), (2, 128)]


def quantized(given: ir.Model, statistics: Statistics | None = None, **options: object) -> PassResult:
    return apply_pass(given, QuantizeBlocks(**options), statistics)


def weight_of(node: ir.Node) -> np.ndarray:
    """The weight [K, N] that a MatMulNBits means, read from its constants by the definition alone."""
    attributes = {name: node.attributes[name].value for name in ("K", "N", "bits", "block_size")}
    bits, block, columns = attributes["bits"], attributes["block_size"], attributes["N"]
    packed, scales, *rest = (None if v is None else v.const_value.numpy() for v in node.inputs[1:])
    blocks = -(-attributes["K"] // block)
    assert packed.shape == (columns, blocks, block * bits // 8)
    codes = np.empty((columns, blocks, block))
    for index in np.ndindex(columns, blocks, block):
        bit = index[2] * bits
        codes[index] = packed[index[0], index[1], bit // 8] >> (bit % 8) & (2**bits - 1)
    zeros = np.full((columns, blocks), 2.0 ** (bits - 1))
    if rest and rest[0] is not None:
        for index in np.ndindex(columns, blocks):
            bit = index[1] * bits
            zeros[index] = rest[0][index[0], bit // 8] >> (bit % 8) & (2**bits - 1)
    values = (codes - zeros[..., None]) * scales.astype(np.float64)[..., None]
    return values.reshape(columns, -1)[:, : attributes["K"]].T


def products(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "MatMulNBits"]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_the_runtime_computes_what_is_packed(bits: int, block: int, symmetric: bool) -> None:
    """8-bit activations per row and block, the packed weight, float sums."""
    body, x = "sum", activation((2, 3, K))
    result = quantized(model_of(BODIES[body]), bits=bits, block=block, symmetric=symmetric)
    (node,) = products(result.model)
    expected = (
        round_activations(x, block).astype(np.float64) @ weight_of(node) + Reference.of(BODIES[body]).bias
    )
    for session in (open_session(result.model), None):
        found = outputs_of(result.model, {"x": x}) if session is None else session.run({"x": x})
        np.testing.assert_allclose(found["y"], expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("body", "shape"), CASES)
def test_every_spelling_and_shape(body: str, shape: str) -> None:
    declared, size = SHAPES[shape]
    x = activation(size)
    result = quantized(model_of(BODIES[body], declared), block=32)
    reference = Reference.of(BODIES[body])
    exact = x.astype(np.float64) @ reference.weight
    exact = exact if reference.bias is None else exact + reference.bias
    assert [node.op_type for node in result.model.graph] == ["MatMulNBits"]
    found = open_session(result.model).run({"x": x})["y"]
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("channels", [17, 40, 63, 64, 65, 100, 130])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_channels_need_not_fill_the_last_block(bits: int, channels: int, symmetric: bool) -> None:
    random = np.random.default_rng(channels)
    w = (random.normal(size=(channels, 48)) + 0.5).astype(np.float32)
    x = activation((2, 3, channels))
    given = model_of("y = MatMul(x, w)", f"B,T,{channels}", w=w)
    result = quantized(given, bits=bits, block=64, symmetric=symmetric)
    (node,) = products(result.model)
    expected = round_activations(x, 64).astype(np.float64) @ weight_of(node)
    found = open_session(result.model).run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_packing_loses_nothing(bits: int, block: int, symmetric: bool, method: str) -> None:
    weight = np.random.default_rng(1).normal(size=(100, 20)).astype(np.float32)
    weight[:, 3] = 0
    grid = block_grid(weight, bits, block, symmetric=symmetric, method=method)
    codes = round_nearest(weight, grid)
    weights, scales, zeros = pack_blocks(codes, grid)
    read = unpack(weights.reshape(20, -1), bits, 100).astype(float)
    blocks = -(-100 // block)
    zero = np.full((20, blocks), 2 ** (bits - 1)) if zeros is None else unpack(zeros, bits, blocks)
    values = (read - np.repeat(zero, block, axis=1)[:, :100]) * np.repeat(scales, block, axis=1)[:, :100]
    np.testing.assert_allclose(values.T, grid.values(codes), rtol=1e-6)
    np.testing.assert_array_equal(values[3], 0)


def test_minmax_grids_hold_every_number_and_mse_grids_err_less() -> None:
    weight = np.random.default_rng(2).standard_t(3, size=(256, 32)).astype(np.float32)
    for symmetric in (True, False):
        wide = block_grid(weight, 4, 64, symmetric=symmetric)
        step = np.repeat(wide.scale, 64, axis=0)
        reached = np.abs(wide.values(round_nearest(weight, wide)) - weight)
        assert (reached <= (0.5001 if symmetric else 1.0001) * step).all()
        fine = block_grid(weight, 4, 64, symmetric=symmetric, method="mse")
        error = [np.square(g.values(round_nearest(weight, g)) - weight).sum(axis=0) for g in (wide, fine)]
        assert (error[1] <= error[0] * 1.0001).all()
        assert error[1].sum() < 0.95 * error[0].sum()


def test_what_matters_is_rounded_finer() -> None:
    weight = np.random.default_rng(2).standard_t(3, size=(64, 32)).astype(np.float32)
    importance = np.where(np.arange(64) % 2, 100.0, 0.01)
    errors = []
    for given in (None, importance):
        method = "mse" if given is None else "weighted"
        grid = block_grid(weight, 4, 64, symmetric=True, method=method, importance=given)
        errors.append(
            (np.square(grid.values(round_nearest(weight, grid)) - weight) * importance[:, None]).sum()
        )
    assert errors[1] < 0.95 * errors[0]


def test_feedback_keeps_the_product_closer() -> None:
    random = np.random.default_rng(3)
    x = (
        random.normal(size=(400, 8)) @ random.normal(size=(8, K)) + 0.1 * random.normal(size=(400, K))
    ).astype(np.float32)
    statistics = Statistics({"x": TensorStatistics(count=400, moments=SecondMoments.of(x))})
    exact = x @ Reference.of(BODIES["product"]).weight
    errors = {}
    for rounding in ("nearest", "feedback"):
        model = quantized(
            model_of(BODIES["product"], "B,64"), statistics, bits=4, block=32, rounding=rounding
        ).model
        errors[rounding] = np.square(x @ weight_of(products(model)[0]) - exact).sum()
    assert errors["feedback"] < 0.5 * errors["nearest"]


@pytest.mark.parametrize("kept", [True, False])
def test_feedback_is_kept_only_where_other_tokens_gain(kept: bool) -> None:
    random = np.random.default_rng(3)
    few, others = random.normal(size=(2, 8, K)) * 3
    seen = (random.normal(size=(4000, 8)) @ few + 0.1 * random.normal(size=(4000, K))).astype(np.float32)
    judging = (random.normal(size=(8, 8)) @ (few if kept else others)).astype(np.float32)
    known = TensorStatistics.of(judging, {Statistic.ROWS})
    statistics = Statistics(
        {"x": replace(known, count=4008, moments=SecondMoments.of(np.vstack([seen, judging])))}
    )
    result = quantized(model_of(BODIES["product"], "B,64"), statistics, bits=4, block=32, rounding="feedback")
    (remark,) = (str(each) for each in result.changes if "feedback" in str(each))
    assert ("no feedback: held-out error" in remark) is not kept
    grid = block_grid(Reference.of(BODIES["product"]).weight, 4, 32, symmetric=True)
    nearest = grid.values(round_nearest(Reference.of(BODIES["product"]).weight, grid))
    same = np.allclose(weight_of(products(result.model)[0]), nearest, rtol=1e-6)
    assert same is not kept


def test_feedback_without_moments_is_refused() -> None:
    for options in ({"rounding": "feedback"}, {"method": "weighted"}):
        result = quantized(model_of(BODIES["product"]), **options)
        assert not result.modified
        assert "no second moments" in result.rejects[0].reason


def test_one_large_channel_spoils_its_own_block_alone() -> None:
    x = activation((1, 40, K))
    x[..., 5] *= 300
    rounded = round_activations(x, 16)
    error = np.abs(rounded - x).max(axis=(0, 1))
    assert error[16:].max() < 0.1
    assert error[:16].max() > 1


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_head_and_its_embedding_share_the_bytes(bits: int, symmetric: bool) -> None:
    table = np.random.default_rng(4).normal(size=(48, K)).astype(np.float32)
    # without the gain 4-bit rows would be rounded to 8 bits at ties
    body = "e = Gather(w, ids) h = Mul(e, gain) t = Transpose<perm = [1, 0]>(w) y = MatMul(h, t)"
    gain = np.random.default_rng(5).uniform(0.5, 2, K).astype(np.float32)
    text = f"g (int64[B,T] ids) => (float[B,T,48] y, float[B,T,{K}] e) {{ {body} }}"
    given = model_of_text(text, w=table, gain=gain)
    result = quantized(given, bits=bits, block=32, symmetric=symmetric)
    ids = np.array([[0, 5, 47], [-1, 1, -48]])
    (node,) = products(result.model)
    rows = weight_of(node).T
    for found in (outputs_of(result.model, {"ids": ids}), open_session(result.model).run({"ids": ids})):
        np.testing.assert_allclose(found["e"], rows[ids], rtol=1e-6)
        wanted = round_activations(found["e"] * gain, 32).astype(np.float64) @ rows.T
        np.testing.assert_allclose(found["y"], wanted, atol=3e-6 * np.abs(wanted).max())
    weights = [v for v in result.model.graph.initializers.values() if v.dtype == ir.DataType.UINT8]
    assert sum(v.shape.numpy() == (48, K // 32, 32 * bits // 8) for v in weights) == 1
    assert "w" not in result.model.graph.initializers


def test_told_not_to_share_the_table_stays() -> None:
    table = np.random.default_rng(4).normal(size=(48, K)).astype(np.float32)
    body = "e = Gather(w, ids) t = Transpose<perm = [1, 0]>(w) y = MatMul(e, t)"
    given = model_of_text(f"g (int64[B] ids) => (float[B,48] y) {{ {body} }}", w=table)
    for options in ({"share_tables": False}, {"block": 128}):
        result = quantized(given, **options)
        assert [node.op_type for node in result.model.graph] == ["Gather", "MatMulNBits"]


def test_two_linears_of_one_weight_share_it() -> None:
    given = model_of("m = MatMul(x, q) y = MatMul(m, q)", "B,T,48", q=np.eye(48, dtype=np.float32) + 0.1)
    result = quantized(given, block=16)
    first, second = products(result.model)
    assert first.inputs[1] is second.inputs[1]
    assert first.inputs[2] is second.inputs[2]


def test_layers_only_and_skip() -> None:
    given = model_of(
        "m = MatMul(x, w) n = MatMul(x, v) o = Gemm(m, q) y = Add(o, n)", "B,64", q=np.eye(48, dtype="f")
    )
    layers = (("node1", 4, 128),)
    model = quantized(given, only=("node0",), layers=layers).model
    assert [(n.attributes["bits"].value, n.attributes["block_size"].value) for n in products(model)] == [
        (8, 64),
        (4, 128),
    ]
    result = quantized(given, skip=("node*",))
    assert not result.modified
    assert {reject.reason for reject in result.rejects} == {"told to stay float"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bits": 3}, "2, 4 or 8 bits"),
        ({"block": 48}, "blocks are of"),
        ({"bits": 2, "block": 16}, "dequantized at every run"),
        ({"bits": 2, "block": 256}, "dequantized at every run"),
        ({"least": 60}, "too small"),
    ],
)
def test_forms_without_a_kernel_are_refused(options: dict[str, int], reason: str) -> None:
    result = quantized(model_of(BODIES["product"]), **options)
    assert not result.modified
    assert reason in result.rejects[0].reason


def test_the_kernel_is_reached() -> None:
    model = quantized(model_of(BODIES["sum"]), bits=4, symmetric=False).model
    landings = confirm_kernels(expected_kernels(model), optimized_graph(model))
    assert [(landing.found, landing.landed, landing.reason) for landing in landings] == [
        ("MatMulNBits", True, "")
    ]


def test_bytes_hold_the_first_code_lowest() -> None:
    np.testing.assert_array_equal(pack(np.array([[1, 2, 3]], np.uint8), 4), [[0x21, 0x03]])
    np.testing.assert_array_equal(pack(np.array([[1, 2, 3, 0, 1]], np.uint8), 2), [[0b00111001, 1]])


def test_symmetric_grids_use_the_lowest_code() -> None:
    grid = block_grid(np.array([[-8.0], [1.0]]), 4, 16, symmetric=True)
    assert grid == grid and isinstance(grid, Grid)
    assert round_nearest(np.array([[-8.0], [1.0]]), grid).tolist() == [[-8], [1]]


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, set()),
        ({"rounding": "feedback"}, {"x", "m"}),
        ({"method": "weighted", "skip": ("node1",)}, {"x"}),
    ],
)
def test_calibration_is_asked_for_what_the_options_need(options: dict[str, object], kinds: set[str]) -> None:
    given = model_of("m = MatMul(x, w) y = MatMul(m, q)", "B,64", q=np.eye(48, dtype=np.float32) + 0.1)
    asked: dict[Statistic, set[str]] = {}

    def gather(model: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
        asked.update({kind: set(names) for kind, names in wanted.items()})
        rows = {"x": activation((200, K)), "m": activation((200, 48))}
        return Statistics(
            {name: TensorStatistics(count=200, moments=SecondMoments.of(x)) for name, x in rows.items()}
        )

    result = run(given, [QuantizeBlocks(**options)], gather=gather, verify="never")
    assert products(result.model)
    judged = {Statistic.ROWS: kinds} if options.get("rounding") == "feedback" else {}
    assert asked == ({Statistic.SECOND_MOMENTS: kinds, **judged} if kinds else {})

"""Each trap as a graph, run through the installed ONNX Runtime: it still holds, or this table is stale."""

from __future__ import annotations

import linears
import numpy as np
import pytest
import runtime_graphs

from onnxq.errors import BackendError
from onnxq.runtime import SessionSettings, open_session
from onnxq.runtime.readback import confirm_kernels, expected_kernels, kernels_of, optimized_graph
from onnxq.runtime.traps import REASONS, find_miscomputed, find_slow, find_unfused

FUSED = {
    "dynamic shape": (linears.qdq(), "MatMulIntegerToFloat"),
    "bias, no quantized output": (linears.qdq(bias="float"), "MatMulIntegerToFloat"),
    "quantized output": (linears.qdq(reader="quantize"), "QLinearMatMul"),
    "signed activation, one reader": (linears.qdq(activation="int8"), "MatMulIntegerToFloat"),
    "shared unsigned activation": (linears.qdq(copies=3), "MatMulIntegerToFloat"),
    "static shape, int32 bias": (linears.qdq(shape="1, 8, 64", bias="int32"), "QGemm"),
    "static shape, quantized output": (
        linears.qdq(shape="1, 8, 64", bias="float", reader="quantize"),
        "QGemm",
    ),
    "gemm, int32 bias": (linears.qdq(shape="n, 64", gemm=True, bias="int32"), "QGemm"),
    "product without zero point": (linears.qdq(zero_point=False), "MatMulIntegerToFloat"),
    "weight only": (linears.qdq(weight_only=True), "MatMulNBits"),
    "kernel": (linears.kernel(), "MatMulIntegerToFloat"),
    "kernel, dynamic": (linears.kernel(dynamic=True), "DynamicQuantizeMatMul"),
    "kernel without a name": (linears.kernel(name=""), "MatMulIntegerToFloat"),
}

UNFUSED = {
    "shared-signed-activation": linears.qdq(activation="int8", copies=3),
    "float-bias": linears.qdq(shape="1, 8, 64", bias="float"),
    "mixed-readers": linears.qdq(reader="both"),
    "no-zero-point": linears.qdq(shape="n, 64", gemm=True, zero_point=False),
    "shared-scale": linears.qdq(weight_only=True, axis=None, copies=2),
    "scale-per-row": linears.qdq(weight_only=True, axis=0),
}

SLOW = {
    "block-32": (linears.qdq(weight_only=True), ()),
    "scalar-softmax": (linears.between_quantizers("Softmax"), ()),
    "unsigned-weight": (linears.qdq(), (("session.x64quantprecision", "1"),)),
    "signed-activation": (linears.qdq(activation="int8", copies=3), (("session.qdqisint8allowed", "1"),)),
}


@pytest.mark.parametrize("case", FUSED)
def test_good_forms_land(case):
    model, kernel = FUSED[case]
    optimized = optimized_graph(model)
    landings = confirm_kernels(expected_kernels(model), optimized)
    assert landings
    assert [(landing.found, landing.landed) for landing in landings] == [(kernel, True)] * len(landings)
    assert kernels_of(optimized) == {kernel: len(landings)}
    assert find_unfused(optimized) == []


@pytest.mark.parametrize("slug", UNFUSED)
def test_products_that_stay_float_are_found_and_explained(slug):
    model = UNFUSED[slug]
    optimized = optimized_graph(model)
    assert kernels_of(optimized) == {}
    traps = find_unfused(optimized)
    assert {trap.slug for trap in traps} == {slug}
    landings = confirm_kernels(expected_kernels(model), optimized)
    assert len(landings) == len(traps)
    assert all(not landing.landed and landing.reason == REASONS[slug] for landing in landings)


def test_float_bias_of_a_two_dimensional_gemm():
    traps = find_unfused(optimized_graph(linears.qdq(shape="n, 64", gemm=True, bias="float")))
    assert [(trap.node, trap.op, trap.slug) for trap in traps] == [("lin0", "Gemm", "float-bias")]


def test_embedding_table_is_dequantized_whole_unless_gathered_first():
    traps = find_unfused(optimized_graph(linears.embedding(quantized_gather=False)))
    assert [(trap.node, trap.slug) for trap in traps] == [("emb", "table-dequantized")]
    assert find_unfused(optimized_graph(linears.embedding(quantized_gather=True))) == []


@pytest.mark.parametrize("slug", SLOW)
def test_slow_kernels_are_found(slug):
    model, config = SLOW[slug]
    assert slug in {trap.slug for trap in find_slow(optimized_graph(model, SessionSettings(config=config)))}


def test_the_fast_form_has_no_traps():
    for model in (linears.qdq(), linears.kernel()):
        assert find_slow(optimized_graph(model)) == []
        assert find_miscomputed(model) == []


def test_one_scale_for_a_batch_lets_samples_disturb_one_another():
    model = linears.kernel(dynamic=True)
    assert [trap.slug for trap in find_miscomputed(model)] == ["scale-of-the-batch"]
    assert [trap.slug for trap in find_miscomputed(optimized_graph(model))] == ["scale-of-the-batch"]
    session, x = open_session(model), np.random.default_rng(0).standard_normal((2, 3, linears.K)).astype("f")
    x[1] *= 100
    together, alone = (session.run({"x": each})["y"][0] for each in (x, x[:1]))
    assert np.linalg.norm(together - alone) > 0.1 * np.linalg.norm(alone)


WITHOUT_INTEGERS = {
    "8 bits, level 0": ({"bits": 8, "level": 0}, "blocks-dequantized"),
    "2 bits, level 0": ({"bits": 2, "level": 0}, "blocks-dequantized"),
    "2 bits, blocks of 16": ({"bits": 2, "block": 16}, "blocks-dequantized"),
    "2 bits, blocks of 256": ({"bits": 2, "block": 256}, "blocks-dequantized"),
    "4 bits, float zero points": ({"zero_points": "float"}, "blocks-dequantized"),
    "4 bits, groups by index": ({"groups": True}, "blocks-dequantized"),
    "4 bits, level 0": ({"level": 0}, "blocks-in-float"),
    "4 bits, level 1": ({"level": 1}, "blocks-in-float"),
}


@pytest.mark.parametrize("case", WITHOUT_INTEGERS)
def test_forms_of_blocks_that_miss_the_integer_kernel(case):
    options, slug = WITHOUT_INTEGERS[case]
    model = linears.blocks(**options)
    assert [trap.slug for trap in find_slow(optimized_graph(model))] == [slug]
    assert not rounds_activations(model)


@pytest.mark.parametrize(
    "options",
    [
        {"bits": bits, "block": block, "zero_points": zero_points}
        for bits, block in ((8, 16), (8, 64), (8, 256), (4, 16), (4, 256), (2, 32), (2, 64), (2, 128))
        for zero_points in ("none", "packed")
    ],
)
def test_forms_of_blocks_that_reach_it(options):
    model = linears.blocks(**options)
    assert find_slow(optimized_graph(model)) == []
    assert find_miscomputed(model) == []
    assert rounds_activations(model)


def rounds_activations(model):
    """Whether a product rounds its activations to 8 bits, which integer kernels alone do."""
    x = np.random.default_rng(0).uniform(1, 2, (1, linears.K)).astype("f")
    x[:, ::16] = 2  # the largest of each block keeps the scales as they are
    nudged = x * np.where(x == 2, 1, 1 + 1e-5).astype("f")  # less than a step
    session = open_session(model)
    first, second = (session.run({"x": each})["y"] for each in (x, nudged))
    return bool(np.mean(first == second) > 0.5)


def test_float_zero_points_of_8_bits_are_refused():
    model = linears.blocks(bits=8, zero_points="float")
    assert [trap.slug for trap in find_miscomputed(model)] == ["blocks-float-zero-points"]
    with pytest.raises(BackendError) as caught:
        open_session(model)
    assert caught.value.slug == "refused"


def test_skip_layer_norm_is_slow_and_can_be_left_out():
    text = "g (float[1, n, 4] x) => (float[1, n, 4] y) { h = Add(x, x)\n y = LayerNormalization(h, g, b) }"
    model = runtime_graphs.model(text, g=np.ones(4, "f"), b=np.zeros(4, "f"))
    assert [trap.slug for trap in find_slow(optimized_graph(model))] == ["scalar-skip-norm"]
    without = SessionSettings(disabled_optimizers=("SkipLayerNormFusion",))
    assert find_slow(optimized_graph(model, without)) == []
    key = "optimization.disable_specified_optimizers"
    for separator, kept in ((",", True), (";", False)):
        names = separator.join(("SkipLayerNormFusion", "BiasSkipLayerNormFusion"))
        assert bool(find_slow(optimized_graph(model, SessionSettings(config=((key, names),))))) == kept


def test_scales_per_row_are_silently_taken_for_columns():
    model = linears.qdq(axis=0)
    assert [trap.slug for trap in find_miscomputed(model)] == ["scale-per-row-fused"]
    x = {"x": np.random.default_rng(0).standard_normal((1, 4, linears.K)).astype("f")}
    literal = open_session(model, SessionSettings(level="disabled")).run(x)["y0"]
    fused = open_session(model).run(x)["y0"]
    assert np.linalg.norm(fused - literal) > 0.1 * np.linalg.norm(literal)


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        (linears.qdq(axis=0, columns=32), "scale-per-row-fused"),
        (linears.qdq(per_channel_activation=True), "activation-per-channel"),
    ],
)
def test_forms_that_load_and_fail_at_the_first_run(model, slug):
    assert [trap.slug for trap in find_miscomputed(model)] == [slug]
    with pytest.raises(BackendError, match="lin0") as caught:
        open_session(model).run({"x": np.zeros((1, 4, linears.K), "f")})
    assert caught.value.slug == "run-failed"


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_per_channel_constant_of_an_elementwise_operator_is_named(op):
    # onnxruntime 1.31 refuses to load this, 1.32 leaves the operator float; the graph is a trap for as
    # long as the oldest supported version has it.
    traps = find_miscomputed(linears.between_quantizers(op))
    assert [(trap.node, trap.slug) for trap in traps] == [("here", "vector-scale")]

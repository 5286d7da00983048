"""With the target for x86 without VNNI results are those of VNNI within rounding; without it they are not."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxq.demo
from onnxq.api import optimize
from onnxq.recipe import OptimizeSettings
from onnxq.runtime import open_session
from onnxq.runtime.settings import SessionSettings
from onnxq.targets import TARGETS, violations
from tests.targets.saturation import HIGHEST, LOWEST, emulated, saturating_product

WIDTH = 128
TARGETS_OF_X86 = ("x86-vnni", "x86-avx2")


def adversary() -> ir.Model:
    """Two layers behind sigmoids: large codes without a sign, next to large weights of one sign."""
    draw = np.random.default_rng(5)
    signs = np.sign(draw.normal(size=(WIDTH // 2, WIDTH)))
    arrays = {}
    for name in ("v", "w"):
        size = 0.6 + 0.4 * draw.random((WIDTH, WIDTH))
        arrays[name] = (np.repeat(draw.permuted(signs, axis=0), 2, axis=0) * size / 8).astype(np.float32)
    arrays["b"] = np.full(WIDTH, 0.5, np.float32)
    text = f"""<ir_version: 9, opset_import: ["" : 17]> g (float[N,{WIDTH}] x) => (float[N,{WIDTH}] y) {{
        s = Sigmoid(x)  p = MatMul(s, v)  a = Add(p, b)  t = Sigmoid(a)  q = MatMul(t, w)  y = Add(q, b)
    }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(each, name) for name, each in arrays.items())
    return ir.from_proto(proto)


def samples(count: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs at which most sigmoids are near 1."""
    draw = np.random.default_rng(seed)
    return {"x": draw.normal(2.0, 1.5, size=(count, WIDTH)).astype(np.float32)}


@functools.cache
def made(subject: str, target: str) -> ir.Model:
    model = adversary() if subject == "adversary" else onnxq.demo.model_path()
    data = samples(64, 1) if subject == "adversary" else onnxq.demo.load_calibration()
    wanted = OptimizeSettings(target=target, effort="fast", verify="never", min_speedup=1e-9)
    return optimize(model, data, settings=wanted).model


@functools.cache
def output(subject: str, target: str, way: str) -> np.ndarray:
    """The output of a subject's file for a target: "kernel" by ONNX Runtime, "exact" or "cut" emulated."""
    model = made(subject, target)
    runnable = model if way == "kernel" else emulated(model, saturating=way == "cut")
    feeds = samples(16, 2)
    if subject == "demo":
        feeds = {name: array[-16:] for name, array in onnxq.demo.load_calibration().items()}
    return np.asarray(next(iter(open_session(runnable).run(feeds).values())))


def decibels(reference: np.ndarray, found: np.ndarray) -> float:
    noise = np.square(found.astype(np.float64) - reference).sum()
    signal = np.square(reference.astype(np.float64) - reference.mean()).sum()
    return float(10 * np.log10(signal / max(noise, 1e-30)))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1 << 30), st.integers(1, 9), st.sampled_from([1, 2, 7, 64, 300]))
def test_seven_bits_never_saturate(seed, rows, depth):
    draw = np.random.default_rng(seed)
    codes = draw.choice([0, 128, 254, 255], size=(rows, depth)).astype(np.uint8)
    weight = draw.choice([-63, -62, 0, 62, 63], size=(depth, 5)).astype(np.int8)
    exact = codes.astype(np.int64) @ weight.astype(np.int64)
    assert np.array_equal(saturating_product(codes, weight), exact)


def test_eight_bits_saturate_both_ways_and_only_in_neighbours():
    codes = np.full((1, 4), 255, np.uint8)
    weight = np.array([[127, -127, 127], [127, -127, -127], [0, 0, 0], [0, 0, 127]], np.int8)
    assert saturating_product(codes, weight).tolist() == [[HIGHEST, LOWEST, 255 * 127]]


def test_the_emulation_of_a_model_does_what_the_instruction_does():
    model = made("adversary", "x86-vnni")
    [first, *_] = [node for node in model.graph if node.op_type == "MatMulIntegerToFloat"]
    codes, weight = str(first.inputs[0].name), first.inputs[1].const_value.numpy()
    cut = emulated(model, saturating=True)
    tapped = SessionSettings(level="disabled", taps=(codes, f"{first.outputs[0].name}_ReduceSum"))
    found = open_session(cut, tapped).run(samples(4, 3), list(tapped.taps))
    assert np.array_equal(found[tapped.taps[1]], saturating_product(found[codes], weight))
    assert not np.array_equal(found[tapped.taps[1]], found[codes].astype(int) @ weight.astype(int))


@pytest.mark.parametrize("subject", ["adversary", "demo"])
@pytest.mark.parametrize("target", TARGETS_OF_X86)
def test_emulated_without_saturation_it_is_the_kernel(subject, target):
    """Up to a code here and there, where the last bit of a float decides which."""
    assert decibels(output(subject, target, "kernel"), output(subject, target, "exact")) > 60


@pytest.mark.parametrize("subject", ["adversary", "demo"])
def test_for_its_own_target_saturation_changes_nothing(subject):
    assert violations(made(subject, "x86-avx2"), TARGETS["x86-avx2"]) == []
    assert np.array_equal(output(subject, "x86-avx2", "exact"), output(subject, "x86-avx2", "cut"))


@pytest.mark.parametrize(("subject", "least"), [("adversary", 50), ("demo", 40)])
def test_with_protection_results_are_those_of_vnni_within_rounding(subject, least):
    assert decibels(output(subject, "x86-vnni", "exact"), output(subject, "x86-avx2", "cut")) > least


@pytest.mark.parametrize(("subject", "most", "apart"), [("adversary", 20, 30), ("demo", 42, 5)])
def test_without_protection_the_damage_shows(subject, most, apart):
    wide = {each.slug for each in violations(made(subject, "x86-vnni"), TARGETS["x86-avx2"])}
    assert "wide-weight" in wide
    exact = output(subject, "x86-vnni", "exact")
    damaged = decibels(exact, output(subject, "x86-vnni", "cut"))
    assert damaged < most
    assert decibels(exact, output(subject, "x86-avx2", "cut")) > damaged + apart

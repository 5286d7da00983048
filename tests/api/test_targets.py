"""One command writes what a target runs, whether there is such hardware here or not."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxq.demo
from onnxq.api.opening import path_beside
from onnxq.api.optimization import OptimizeResult, check_rules, optimize
from onnxq.errors import UsageProblem, VerificationFailed
from onnxq.ir.walk import constant_of, nodes
from onnxq.recipe import OptimizeSettings
from onnxq.runtime import open_session
from onnxq.targets import TARGETS, violations
from onnxq.targets.quantized import activation_dequantize, weight_of
from tests.api import models

NAMED = ("openvino", "cuda", "tensorrt")


@functools.cache
def made(target: str, weights: str = "int8") -> OptimizeResult:
    settings = OptimizeSettings(target=target, weights=weights, effort="fast", verify="never", threads=1)  # type: ignore[arg-type]
    return optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings)


def found(target: str, op_type: str, weights: str = "int8") -> list[ir.Node]:
    return [node for node in nodes(made(target, weights).model) if node.op_type == op_type]


@pytest.mark.parametrize("name", NAMED)
def test_a_file_keeps_the_rules_of_its_target_and_the_types_of_its_ports(name: str) -> None:
    model, original = made(name).model, models.digits()
    assert violations(model, TARGETS[name]) == []
    for old, new in (
        (original.graph.inputs, model.graph.inputs),
        (original.graph.outputs, model.graph.outputs),
    ):
        assert [(each.name, each.dtype) for each in old] == [(each.name, each.dtype) for each in new]
    assert any(TARGETS[name].title in hint for hint in made(name).report.hints)


@pytest.mark.parametrize("name", NAMED)
def test_it_runs_in_the_runtime_at_hand_and_stays_close(name: str) -> None:
    result = made(name)
    feeds = {key: array[:4] for key, array in onnxq.demo.load_calibration().items()}
    for each in open_session(result.model).run(feeds).values():
        assert each.dtype == np.float32
        assert np.isfinite(each).all()
    assert result.report.fidelity[0].cosine_mean > 0.999


def test_tensorrt_gets_symmetric_int8_in_half_precision() -> None:
    zeros = [constant_of(node.inputs[2]) for op in ("QuantizeLinear", "DequantizeLinear")
             for node in found("tensorrt", op)]  # fmt: skip
    assert len(zeros) > 20
    assert all(zero is not None and zero.dtype == np.int8 and not zero.any() for zero in zeros)
    scales = [constant_of(node.inputs[1]) for node in found("tensorrt", "DequantizeLinear")]
    assert all(scale is not None and scale.dtype == np.float16 for scale in scales)
    assert {each.inputs[0].dtype for each in found("tensorrt", "LayerNormalization")} == {ir.DataType.FLOAT}
    assert all(not any(value.dtype == ir.DataType.FLOAT for value in each.inputs if value is not None)
               for each in found("tensorrt", "MatMul"))  # fmt: skip


def test_tensorrt_and_openvino_get_float_biases() -> None:
    for name in ("tensorrt", "openvino"):
        stored = [node.inputs[0] for node in found(name, "DequantizeLinear")]
        assert all(codes is not None and codes.dtype != ir.DataType.INT32 for codes in stored)


@pytest.mark.parametrize("name", ["tensorrt", "openvino"])
def test_attention_is_quantized_where_the_target_says_so(name: str) -> None:
    products = [node for node in found(name, "MatMul") if weight_of(node) is None]
    activations = [node for node in products if constant_of(node.inputs[1]) is None]
    assert len(activations) == 4  # two of each of two layers
    for node in activations:
        rounded = all(activation_dequantize(value) is not None for value in node.inputs)
        assert rounded == TARGETS[name].quantized_attention


@pytest.mark.parametrize(("weights", "bits"), [("int8", {8}), ("int4", {4, 8})])
def test_cuda_gets_weights_in_blocks_beside_half_precision(weights: str, bits: set[int]) -> None:
    products = found("cuda", "MatMulNBits", weights)
    assert len(products) >= 10
    assert {node.attributes.get_int("bits", 0) for node in products} <= bits
    assert min(bits) in {node.attributes.get_int("bits", 0) for node in products}
    assert all(node.attributes.get_int("block_size", 0) in (32, 64, 128) for node in products)
    for node in products:
        assert node.inputs[0].dtype == node.inputs[2].dtype == ir.DataType.FLOAT16
    assert not found("cuda", "QuantizeLinear", weights)
    assert made("cuda", weights).report.fidelity[0].cosine_mean > (0.9999 if weights == "int8" else 0.995)


def test_half_precision_needs_casts_only_at_the_ends_and_around_norms() -> None:
    assert len(found("cuda", "Cast")) == 2
    assert len(found("tensorrt", "Cast")) <= 2 + 2 * len(found("tensorrt", "LayerNormalization"))


@pytest.mark.parametrize("name", ["openvino", "tensorrt"])
def test_four_bits_are_refused_by_those_that_have_none(name: str) -> None:
    settings = OptimizeSettings(target=name, weights="int4", effort="fast")
    with pytest.raises(UsageProblem) as caught:
        optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings)
    assert caught.value.slug == "int4-as-qdq"


def test_what_a_pass_made_may_not_break_the_rules_and_what_was_there_may() -> None:
    model = ir.from_proto(ir.to_proto(made("tensorrt").model))
    with pytest.raises(VerificationFailed) as caught:
        check_rules(model, TARGETS["x86-vnni"], models.digits())
    assert caught.value.slug == "forbidden-form"
    assert "signed-activation" in str(caught.value)
    for node in nodes(model):
        node.metadata_props.pop("onnxq.pass", None)
    check_rules(model, TARGETS["x86-vnni"], models.digits())


def test_a_pass_may_spell_anew_what_came_in_a_form_that_is_forbidden() -> None:
    """Files of other tools, and onnxq's own for another target, are no bugs of this run."""
    model = made("tensorrt").model
    check_rules(model, TARGETS["x86-vnni"], model)


@pytest.mark.parametrize("name", NAMED)
def test_a_file_is_saved_with_how_it_is_to_be_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    made(name).save(path)
    expected = TARGETS[name].opening
    assert made(name).opening.options == expected
    assert path_beside(path).exists() == bool(expected)

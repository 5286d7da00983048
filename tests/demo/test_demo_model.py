"""The model that ships is small, right, and hurt by min-max INT8 in a way that moving gamma repairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxq.demo
from onnxq import files
from onnxq.ir.norm import find_norm
from onnxq.runtime import open_session

OUTLIERS = 3


def accuracy_of(model: ir.Model | Path) -> float:
    images, labels = onnxq.demo.load_test()
    logits = open_session(model).run(images)[onnxq.demo.OUTPUT]
    return float((logits.argmax(-1) == labels).mean())


def with_gamma_moved(model: ir.Model) -> ir.Model:
    """The same function with every gamma in the rows of the products that read its norm."""
    constants = model.graph.initializers
    for node in model.graph:
        readers = [use.node for use in node.outputs[0].uses()]
        if node.op_type != "LayerNormalization" or {reader.op_type for reader in readers} != {"MatMul"}:
            continue
        gamma = constants[node.inputs[1].name].const_value.numpy().copy()
        for value in node.inputs[1:]:
            value.const_value = ir.tensor(value.const_value.numpy() / gamma, name=value.name)
        for reader in readers:
            weight = reader.inputs[1]
            weight.const_value = ir.tensor(weight.const_value.numpy() * gamma[:, None], name=weight.name)
    return model


def quantize_plainly(model: ir.Model, folder: Path) -> Path:
    """Static min-max INT8 of the linears by ONNX Runtime, its best settings for transformers on x86."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            images = onnxq.demo.load_calibration()[onnxq.demo.INPUT]
            self.batches: Iterator[dict[str, np.ndarray]] = iter([{onnxq.demo.INPUT: images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    source, target = folder / "float.onnx", folder / "int8.onnx"
    files.save(model, source)
    quantization.quantize_static(
        source,
        target,
        Reader(),
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={
            "MatMulConstBOnly": True,
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
        },
    )
    return target


def test_model_and_images_stay_under_a_megabyte():
    folder = onnxq.demo.model_path().parent
    assert sum(path.stat().st_size for path in folder.glob("digits.*")) < 1_000_000


def test_model_carries_no_trace_of_the_machine_that_trained_it():
    assert b".py" not in onnxq.demo.model_path().read_bytes()


def test_model_recognises_digits():
    assert accuracy_of(onnxq.demo.model_path()) > 0.97


def test_images_are_ink_between_zero_and_one_and_not_used_twice():
    calibration = onnxq.demo.load_calibration()[onnxq.demo.INPUT]
    test, labels = onnxq.demo.load_test()
    images = test[onnxq.demo.INPUT]
    assert (calibration.shape, calibration.dtype) == ((64, 8, 8), np.float32)
    assert (images.shape, labels.shape) == ((540, 8, 8), (540,))
    assert images.min() == 0.0
    assert images.max() == 1.0
    assert set(labels.tolist()) == set(range(10))
    assert not {image.tobytes() for image in calibration} & {image.tobytes() for image in images}


def test_same_few_channels_of_every_norm_before_linears_are_outliers():
    model = files.load(onnxq.demo.model_path())
    norms = [norm for norm in map(find_norm, model.graph) if norm and "blocks" in str(norm.nodes[-1].inputs)]
    largest = {tuple(np.sort(np.argsort(norm.gamma)[-OUTLIERS:])) for norm in norms}
    assert len(norms) == 4
    assert len(largest) == 1
    for norm in norms:
        assert np.sort(norm.gamma)[-OUTLIERS] > 20 * np.median(norm.gamma)


def test_min_max_int8_costs_points_that_moving_gamma_gives_back(tmp_path):
    original = accuracy_of(onnxq.demo.model_path())
    plain = accuracy_of(quantize_plainly(files.load(onnxq.demo.model_path()), tmp_path))
    moved = with_gamma_moved(files.load(onnxq.demo.model_path()))
    assert accuracy_of(moved) == pytest.approx(original, abs=1e-9)
    assert original - plain > 0.03
    assert original - accuracy_of(quantize_plainly(moved, tmp_path)) < 0.01

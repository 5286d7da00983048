"""ONNX Runtime's own quantizers, one call a name, each run as a process so that time and memory are its own.

    python -m benchmarks.quantizers NAME MODEL CALIBRATION.npz BATCH OUT

The calls are the best known of each kind for transformers on x86. `ort-static-default` is what a reader of
the documentation gets; `ort-noout` leaves activations float except where an INT8 product reads them; `-mm`
leaves embeddings float.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import batches, load

LINEARS = ["MatMul", "Gemm"]
"""Operator types that `-mm` and `noout` quantize."""
ONLY_INPUTS = {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": LINEARS}
"""Options that quantize what a linear reads, and neither its output nor products of two activations."""


@dataclass(frozen=True)
class Job:
    """One model to quantize: calibration data by input name, how many samples a batch, and where to."""

    model: Path
    calibration: Path
    batch: int
    target: Path


def quantize_static(job: Job, **options: object) -> None:
    """Calibrate and insert QuantizeLinear and DequantizeLinear."""
    from onnxruntime import quantization

    source = _preprocess(job)
    quantization.quantize_static(source, job.target, _reader(job), **options)


def quantize_dynamic(job: Job, **options: object) -> None:
    """Quantize weights now and activations at every run."""
    from onnxruntime import quantization

    quantization.quantize_dynamic(
        _preprocess(job), job.target, per_channel=True, **_int8_weights(), **options
    )


def quantize_static_inputs(job: Job, method: str) -> None:
    """Quantize what linears read: uint8 per tensor, weights int8 per column; outputs stay float."""
    from onnxruntime import quantization

    quantize_static(
        job,
        activation_type=quantization.QuantType.QUInt8,
        per_channel=True,
        calibrate_method=quantization.CalibrationMethod[method],
        op_types_to_quantize=LINEARS,
        extra_options=ONLY_INPUTS,
        **_int8_weights(),
    )


QUANTIZERS: Mapping[str, Callable[[Job], None]] = {
    "ort-static-default": quantize_static,
    "ort-noout": lambda job: quantize_static_inputs(job, "MinMax"),
    "ort-noout-percentile": lambda job: quantize_static_inputs(job, "Percentile"),
    "ort-dynamic": quantize_dynamic,
    "ort-dynamic-mm": lambda job: quantize_dynamic(job, op_types_to_quantize=LINEARS),
}
CALLS: Mapping[str, str] = {
    "ort-static-default": "quantize_static(preprocessed, out, reader)",
    "ort-noout": "quantize_static(QUInt8, QInt8, per_channel, [MatMul, Gemm], MatMulConstBOnly, no outputs)",
    "ort-noout-percentile": "ort-noout with CalibrationMethod.Percentile",
    "ort-dynamic": "quantize_dynamic(QInt8, per_channel)",
    "ort-dynamic-mm": "quantize_dynamic(QInt8, per_channel, [MatMul, Gemm])",
}
"""What the table prints for each name."""


def _int8_weights() -> dict[str, object]:
    from onnxruntime import quantization

    return {"weight_type": quantization.QuantType.QInt8}


def _preprocess(job: Job) -> Path:
    """Do what its documentation asks for first: infer shapes and let the runtime simplify the graph."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = job.target.with_suffix(".pre.onnx")
    try:
        quant_pre_process(str(job.model), str(target))
    except Exception as error:  # its symbolic inference raises plain exceptions on graphs it cannot follow
        print(f"again without symbolic shapes: {error}", file=sys.stderr)
        quant_pre_process(str(job.model), str(target), skip_symbolic_shape=True)
    return target


def _reader(job: Job) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not followed
        def __init__(self) -> None:
            self.left: Iterator[dict[str, np.ndarray]] = iter(batches(load(job.calibration), job.batch))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    return Reader()


def main() -> None:
    """Quantize one model as the command line says."""
    name, batch = sys.argv[1], int(sys.argv[4])
    model, calibration, out = (Path(sys.argv[index]).resolve() for index in (2, 3, 5))
    # ONNX Runtime's symbolic inference drops the model it fails on into the working directory
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        made = Path(scratch) / "model.onnx"
        QUANTIZERS[name](Job(model, calibration, batch, made))
        shutil.move(made, out)


if __name__ == "__main__":
    main()

"""ONNX Runtime's own quantizers, and its transformer optimizer in front of them.

Options: `call` names the function (`quantize_static`, `quantize_dynamic`), `fuse` asks for the optimizer
first; the others are keyword arguments of the function, enumerations by the names of their members.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rival_builds.job import Job, read_job

FAMILIES = {"minilm": "bert", "vit": "vit"}
"""What the optimizer is to take a model for."""
ENUMERATIONS = {
    "activation_type": "QuantType",
    "weight_type": "QuantType",
    "calibrate_method": "CalibrationMethod",
}


def quantize(job: Job, scratch: Path) -> Path:
    """Run the call that the options name; the model lies in `scratch` then."""
    from onnxruntime import quantization

    options = dict(job.options)
    call = getattr(quantization, options.pop("call"))
    fuse = options.pop("fuse", False)
    source = _fuse(job, scratch) if fuse else _preprocess(job.model, scratch)
    for name, enumeration in ENUMERATIONS.items():
        if name in options:
            options[name] = getattr(quantization, enumeration)[options[name]]
    if call is quantization.quantize_static:
        options["calibration_data_reader"] = _reader(job)
    made = scratch / "quantized.onnx"
    call(source, made, **options)
    return made


def _fuse(job: Job, scratch: Path) -> Path:
    """Run the optimizer alone: shape inference fails on the operators that it makes."""
    from onnxruntime.transformers.optimizer import optimize_model

    fused = scratch / "fused.onnx"
    optimized = optimize_model(str(job.model), model_type=FAMILIES[job.subject], opt_level=0)
    optimized.save_model_to_file(str(fused))
    return fused


def _preprocess(source: Path, scratch: Path) -> Path:
    """Do what its documentation asks for first: infer shapes and let the runtime simplify the graph."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = scratch / "preprocessed.onnx"
    try:
        quant_pre_process(str(source), str(target))
    except Exception as error:  # its symbolic inference raises plain exceptions on graphs it cannot follow
        print(f"again without symbolic shapes: {error}", file=sys.stderr)
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    return target


def _reader(job: Job) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not followed
        def __init__(self) -> None:
            self.left: Iterator[dict[str, np.ndarray]] = iter(job.batches())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    return Reader()


def main() -> None:
    """Quantize one model as the command line says."""
    job = read_job()
    # its symbolic inference drops the model that it fails on into the working directory
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        shutil.move(quantize(job, Path(scratch)), job.target)


if __name__ == "__main__":
    main()

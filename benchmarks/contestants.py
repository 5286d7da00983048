"""Who takes part, as data: what makes each one's file, and what runs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import ENVIRONMENTS, python_of
from benchmarks.rival_builds.job import Job, write_job
from benchmarks.subjects import Subject


@dataclass(frozen=True)
class Runtime:
    """What runs a file, and how.

    Attributes:
        name: "onnxruntime" or "openvino".
        environment: The one it is installed in; empty for that of the benchmark.
        settings: Differences from its defaults, as `benchmarks.running` takes them.
    """

    name: str
    environment: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def python(self) -> str:
        """The interpreter that has this runtime."""
        return str(python_of(self.environment)) if self.environment else sys.executable


@dataclass(frozen=True)
class Ours:
    """A file that `onnxq optimize` makes, with options besides model, data and output."""

    options: tuple[str, ...] = ()
    suffix = ".onnx"
    environment = ""

    def command(self, subject: Subject, target: Path) -> list[str]:
        """How our users make it."""
        options = [*subject.data_options(), *self.options, "-o", str(target), "--json"]
        return [sys.executable, "-m", "onnxq", "optimize", str(subject.path), *options]


@dataclass(frozen=True)
class Rival:
    """A file that another tool makes.

    Attributes:
        environment: The one that has the tool.
        program: Module of `benchmarks.rival_builds`.
        options: What the program is told.
        suffix: Of the file.
    """

    environment: str
    program: str
    options: Mapping[str, Any]
    suffix: str = ".onnx"

    def command(self, subject: Subject, target: Path) -> list[str]:
        """How the tool's own environment makes it."""
        data = subject.data / "calibration.npz"
        job = Job(subject.model, subject.path, data, subject.batch, target, self.options)
        module = f"benchmarks.rival_builds.{self.program}"
        return [str(python_of(self.environment)), "-m", module, write_job(job)]

    @property
    def versions(self) -> tuple[str, ...]:
        """Packages that the file hangs on."""
        return ENVIRONMENTS[self.environment].packages


@dataclass(frozen=True)
class Contestant:
    """A file and what runs it.

    Attributes:
        call: What the table says about it.
        maker: What makes the file; None for that of another.
        file_of: The contestant whose file it is if there is no maker; "fp32" is the original.
        runtime: What runs it.
        models: Models that it takes part in; all if empty.
    """

    call: str
    maker: Ours | Rival | None = None
    file_of: str = ""
    runtime: Runtime = Runtime("onnxruntime")
    models: tuple[str, ...] = ()


_ENCODERS, _LANGUAGE = ("minilm", "vit"), ("smollm2", "smollm2-cache")
_LINEARS = ["MatMul", "Gemm"]
_U8S8 = {"activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True}
_INPUTS_ONLY = {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": _LINEARS}
_STATIC = {
    "call": "quantize_static",
    **_U8S8,
    "op_types_to_quantize": _LINEARS,
    "extra_options": _INPUTS_ONLY,
}
_FLOAT = 1
"""ONNX's number of float32, which the quantizer cannot infer behind fused operators."""
_DYNAMIC = {"call": "quantize_dynamic", "weight_type": "QInt8", "per_channel": True}
_FUSED = {"fuse": True, "extra_options": {"DefaultTensorType": _FLOAT}}
_EXACT = Runtime("openvino", "nncf", {"INFERENCE_PRECISION_HINT": "f32"})
_AS_IT_COMES = Runtime("openvino", "nncf")
NO_SKIP = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion")


def _ort(call: str, options: Mapping[str, Any], models: tuple[str, ...] = ()) -> Contestant:
    return Contestant(call, Rival("onnxruntime", "onnxruntime_quantizers", options), models=models)


def _nncf(call: str, options: Mapping[str, Any], models: tuple[str, ...] = _ENCODERS) -> Contestant:
    return Contestant(call, Rival("nncf", "nncf_quantizers", options), models=models)


def _openvino(call: str, options: Mapping[str, Any]) -> Contestant:
    return Contestant(call, Rival("nncf", "nncf_quantizers", options, ".xml"), runtime=_EXACT)


CONTESTANTS: Mapping[str, Contestant] = {
    "fp32": Contestant("the source model", file_of="fp32"),
    "fp32-noskip": Contestant(
        "the source model without SkipLayerNormFusion",
        file_of="fp32",
        runtime=Runtime("onnxruntime", "", {"disabled_optimizers": list(NO_SKIP)}),
    ),
    "ort-static-default": _ort(
        "quantize_static(preprocessed, out, reader)", {"call": "quantize_static"}, _ENCODERS
    ),
    "ort-static": _ort(
        "quantize_static(QUInt8, QInt8, per_channel)", {"call": "quantize_static", **_U8S8}, _ENCODERS
    ),
    "ort-noout": _ort(
        "quantize_static(QUInt8, QInt8, per_channel, [MatMul, Gemm], MatMulConstBOnly, no outputs)", _STATIC
    ),
    "ort-noout-percentile": _ort(
        "ort-noout with CalibrationMethod.Percentile",
        {**_STATIC, "calibrate_method": "Percentile"},
        _ENCODERS,
    ),
    "ort-dynamic": _ort("quantize_dynamic(QInt8, per_channel)", _DYNAMIC),
    "ort-dynamic-mm": _ort(
        "quantize_dynamic(QInt8, per_channel, [MatMul, Gemm])", {**_DYNAMIC, "op_types_to_quantize": _LINEARS}
    ),
    "ort-fused-dynamic": _ort(
        "transformers.optimizer, then quantize_dynamic(QInt8, per_channel)",
        {**_DYNAMIC, **_FUSED},
        _ENCODERS,
    ),
    "ort-fused-dynamic-mm": _ort(
        "transformers.optimizer, then quantize_dynamic of [MatMul, Attention, Gemm]",
        {**_DYNAMIC, **_FUSED, "op_types_to_quantize": ["MatMul", "Attention", "Gemm"]},
        _ENCODERS,
    ),
    "nncf-onnx": _nncf("nncf.quantize(onnx, TRANSFORMER, MIXED)", {"call": "quantize"}),
    "nncf-onnx-performance": _nncf(
        "nncf-onnx with preset=PERFORMANCE", {"call": "quantize", "preset": "PERFORMANCE"}
    ),
    "nncf-onnx-nosq": _nncf("nncf-onnx without smoothing", {"call": "quantize", "smooth": -1}),
    "nncf-onnx-weights": _nncf(
        "nncf.compress_weights(onnx, INT8_ASYM)",
        {"call": "compress_weights", "mode": "INT8_ASYM"},
        ("smollm2",),
    ),
    "openvino": Contestant("the source model in OpenVINO, f32", file_of="fp32", runtime=_EXACT),
    "openvino-bf16": Contestant(
        "the source model in OpenVINO as it comes", file_of="fp32", runtime=_AS_IT_COMES
    ),
    "openvino-nncf": _openvino("nncf.quantize(openvino, TRANSFORMER, MIXED), f32", {"call": "quantize"}),
    "openvino-nncf-bf16": Contestant(
        "the same file in OpenVINO as it comes", file_of="openvino-nncf", runtime=_AS_IT_COMES
    ),
    "onnxq": Contestant("onnxq optimize MODEL --calib DATA", Ours()),
    "onnxq-qdq": Contestant("onnxq optimize MODEL --calib DATA --format qdq", Ours(("--format", "qdq"))),
    "onnxq-fast": Contestant(
        "onnxq optimize MODEL --calib DATA --effort fast --verify never",
        Ours(("--effort", "fast", "--verify", "never")),
        models=_LANGUAGE,
    ),
    "onnxq-int4": Contestant(
        "onnxq optimize MODEL --calib DATA --weights int4", Ours(("--weights", "int4")), models=_LANGUAGE
    ),
    "openvino-onnxq": Contestant(
        "onnxq optimize MODEL --calib DATA --target openvino; in OpenVINO, f32",
        Ours(("--target", "openvino")),
        runtime=_EXACT,
        models=_ENCODERS,
    ),
    "openvino-onnxq-bf16": Contestant(
        "the same file in OpenVINO as it comes",
        file_of="openvino-onnxq",
        runtime=_AS_IT_COMES,
        models=_ENCODERS,
    ),
}


def taking_part(subject: Subject) -> dict[str, Contestant]:
    """The contestants of a subject, the original first."""
    return {
        name: each for name, each in CONTESTANTS.items() if not each.models or subject.model in each.models
    }

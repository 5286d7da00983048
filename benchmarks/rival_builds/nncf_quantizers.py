"""NNCF on an ONNX file or on OpenVINO's own form of it: the target's suffix tells which.

Options: `call` is `quantize` (weights and activations) or `compress_weights`; `preset` and `mode` are members
of their enumerations; `smooth` is the exponent of its smoothing of products, -1 for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.rival_builds.job import Job, read_job


def main() -> None:
    """Quantize one model as the command line says."""
    job = read_job()
    if job.target.suffix == ".onnx":
        import onnx

        graph = onnx.load(job.model)  # noqa: TID251  # onnxq is not in this environment
        onnx.save(compress(graph, [each.name for each in graph.graph.input], job), job.target)  # noqa: TID251
        return
    import openvino

    model = openvino.Core().read_model(job.model)
    names = [each.any_name for each in model.inputs]
    openvino.save_model(compress(model, names, job), job.target, compress_to_fp16=False)


def compress(model: Any, inputs: list[str], job: Job) -> Any:
    """Run the call that the options name."""
    import nncf

    options = job.options
    if options["call"] == "compress_weights":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode[options["mode"]])
    samples: list[Mapping[str, np.ndarray]] = [
        {name: each[name] for name in inputs} for each in job.batches()
    ]
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset[options.get("preset", "MIXED")],
        subset_size=len(samples),
        advanced_parameters=_advanced(options),
    )


def _advanced(options: Mapping[str, Any]) -> Any:
    from nncf.quantization import advanced_parameters as advanced

    if "smooth" not in options:
        return None
    alphas = advanced.AdvancedSmoothQuantParameters(matmul=options["smooth"])
    return advanced.AdvancedQuantizationParameters(smooth_quant_alphas=alphas)


if __name__ == "__main__":
    main()

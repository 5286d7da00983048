"""How a runtime has to be told to open a file: what the graph itself cannot say.

Nothing of this is needed on ONNX Runtime's x86 provider, where it was measured (`docs/targets.md`). What is
listed here is for runtimes that would otherwise compute in another precision than the file was judged in, or
not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["provider option", "session config", "disabled optimizer"]


@dataclass(frozen=True)
class OpeningOption:
    """One thing to tell the runtime.

    Attributes:
        kind: An option of the execution provider, an entry of the session's configuration, or a graph
            optimizer to leave out.
        name: The runtime's name of it.
        value: Its value, in the runtime's words; "" for an optimizer.
        reason: What it is for.
        known: How that is known.
        float_linears: Whether it matters only where linears stay float.
    """

    kind: Kind
    name: str
    value: str
    reason: str
    known: str
    float_linears: bool = False


OPENVINO = (
    OpeningOption(
        "provider option",
        "device_type",
        "CPU",
        "the file is in the form of OpenVINO's CPU plugin; its others compute floats in float16",
        "documentation of onnxruntime's OpenVINO provider",
    ),
    OpeningOption(
        "provider option",
        "load_config",
        '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}',
        "a processor with bfloat16 may compute in it what stays float, which fidelity was not judged in",
        "documentation of OpenVINO; onnxruntime-openvino 1.24.1 gives other numbers with bf16 in its place",
    ),
)
_TENSORRT_REFUSES = "without it TensorRT refuses or widens what the file has in"
TENSORRT = (
    OpeningOption(
        "provider option",
        "trt_int8_enable",
        "True",
        f"{_TENSORRT_REFUSES} int8",
        "issue 13381 of onnxruntime: engines with Q/DQ are not built; not tried here",
    ),
    OpeningOption(
        "provider option",
        "trt_fp16_enable",
        "True",
        f"{_TENSORRT_REFUSES} float16",
        "documentation of onnxruntime's TensorRT provider; not tried here",
    ),
)
ARM_BFLOAT16 = (
    OpeningOption(
        "session config",
        "mlas.enable_gemm_fastmath_arm64_bfloat16",
        "1",
        "products that stay float are computed in bfloat16, about three digits, 1.2 to 1.8 times as fast",
        "pull request 17031 of onnxruntime, measured there on Graviton3; not tried here",
        float_linears=True,
    ),
)
"""Processors with 8-bit matrix products have those of bfloat16, too."""

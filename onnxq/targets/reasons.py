"""Why a form is forbidden, by slug: a sentence each, shared by the targets that forbid it.

From ONNX Runtime's sources (``core/mlas/lib/platform.cpp``, ``core/optimizer/qdq_transformer``,
``contrib_ops/cuda/quantization``, ``core/providers/tensorrt``) and from running each case on its CPU
provider; what is said of TensorRT is of its documentation of explicit quantization.
"""

from __future__ import annotations

from collections.abc import Mapping

_FLOAT_ONLY = "there is no INT8 kernel for it on CPUs, and quantizing around it only costs"

WRONG: Mapping[str, str] = {
    "weight-scale-per-row": "scales per row of a weight are computed wrongly or not at all",
    "activation-scale-per-channel": "no kernel takes activations with a scale for each channel",
    "dequantized-table": "DequantizeLinear in front of Gather dequantizes the whole table at every run",
}
"""Of every target."""

CPU: Mapping[str, str] = {
    **WRONG,
    "quantized-product-output": "a product with a float output is as fast and more accurate",
    "quantized-softmax": "QLinearSoftmax is scalar, several times slower than Softmax",
    "quantized-norm": _FLOAT_ONLY,
    "quantized-gelu": _FLOAT_ONLY,
    "quantized-residual": "QLinearAdd is no faster than Add, and rounds the residual stream",
    "dequantized-weight": "a weight that is dequantized beside a float activation is so at every run",
    "scale-of-the-batch": (
        "a scale found while running for all samples at once makes one's answer depend on the others"
    ),
    "skip-layer-norm": "SkipLayerNormalization is scalar; keep Add and LayerNormalization apart",
}
"""Of ONNX Runtime's CPU provider on any processor."""

X86: Mapping[str, str] = {
    **CPU,
    "signed-activation": "int8 activations run in a scalar kernel, a fifth of the speed of float",
    "unsigned-weight": "uint8 weights miss the uint8 x int8 kernel and run at less than half its speed",
}

SATURATING: Mapping[str, str] = {
    **X86,
    "wide-weight": "vpmaddubsw adds two products in 16 bits: beyond 63, weights can overflow them",
}

ARM: Mapping[str, str] = {
    **CPU,
    "unsigned-activation": "sdot and smmla multiply int8 by int8; uint8 would be turned into it first",
    "asymmetric-weight": "a weight zero point other than 0 misses the packed kernels",
}

STANDARD: Mapping[str, str] = {
    **WRONG,
    "foreign-operator": "operators outside the ONNX standard are ONNX Runtime's own",
}
"""Of runtimes that read standard ONNX: they fuse Q/DQ around residuals, so the CPU's list does not bind."""

SYMMETRIC: Mapping[str, str] = {
    **STANDARD,
    "unsigned-activation": "only int8 Q/DQ is read; QuantizeLinear without a zero point is uint8 too",
    "asymmetric-activation": "the zero point of an activation has to be 0",
    "unsigned-weight": "only int8 Q/DQ is read",
    "asymmetric-weight": "the zero point of a weight has to be 0",
}

TENSORRT: Mapping[str, str] = {
    **SYMMETRIC,
    "integer-bias": "a bias is float; DequantizeLinear of int32 is no layer of TensorRT",
    "dequantized-weight": "an INT8 product needs Q/DQ in front of both operands",
}

OPENVINO: Mapping[str, str] = {
    **STANDARD,
    "asymmetric-weight": "weights are int8 around 0; a zero point is subtracted in each product",
    "integer-bias": "a bias is float; quantized it is dequantized by a subgraph of its own",
}

CUDA: Mapping[str, str] = {
    **WRONG,
    "quantized-activation": "the CUDA provider fuses no Q/DQ of activations: it computes them one by one",
    "dequantized-weight": "weights behind DequantizeLinear are dequantized at every run; use MatMulNBits",
    "operator-without-kernel": "the CUDA provider has no kernel for it, and copies to the CPU and back",
    "narrow-blocks": "MatMulNBits has no CUDA kernel for 2 bits: they are read as 4",
    "odd-blocks": "the weight-only kernels take blocks of 32, 64 or 128",
}

"""The targets that there are, as data: which operand types have a fast kernel, and what never to emit.

From the GEMM dispatch of ONNX Runtime's MLAS (``core/mlas/lib/platform.cpp``) and measurements on its CPU
provider. A target says what to emit; whether a linear really got its kernel is confirmed after emission, and
whether anything forbidden was emitted by `onnxq.targets.rules`, which needs no such processor.

The smallest sizes of x86-vnni were measured (Zen 4, one thread, QuantizeLinear counted): at K = N = 64
INT8 takes as long as float for 16 rows and 0.65 of it for 128; a single row needs K = N = 256. At 32 it
gains little, since QuantizeLinear and the call cost about 1.5 us. Those of the other processors are
estimates.

Arm multiplies uint8 as fast as int8 by udot and ummla, after flipping the top bit of either operand; its
targets get int8 activations with a zero point, which is the same grid, and what the kernels that do not flip
take. AMX multiplies uint8 by int8 in tiles, so its target differs from VNNI's in costs alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnxq.targets import opening, reasons
from onnxq.targets.costs import COMPILED, KernelCosts
from onnxq.targets.target import Target

_BLOCKS = (16, 32, 64, 128, 256)
_CUDA_BLOCKS = (32, 64, 128)
_NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "GroupNormalization")

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="x86-vnni",
            title="x86 with 8-bit dot products",
            block_bits=(8, 4),
            block_sizes=_BLOCKS,
            smallest_depth=64,
            smallest_width=64,
            forbidden=reasons.X86,
        ),
        Target(
            name="x86-avx2",
            title="x86 without 8-bit dot products",
            weight_bits=7,
            block_bits=(8, 4),
            block_sizes=_BLOCKS,
            smallest_depth=128,
            smallest_width=128,
            forbidden=reasons.SATURATING,
        ),
        Target(
            name="x86-amx",
            title="x86 with 8-bit tiles",
            block_bits=(8, 4),
            block_sizes=_BLOCKS,
            smallest_depth=64,
            smallest_width=64,
            forbidden=reasons.X86,
            costs=KernelCosts(integer_macs=600_000.0),
        ),
        Target(
            name="arm-dot",
            title="64-bit Arm with 8-bit dot products",
            activation_type="int8",
            block_bits=(8, 4),
            block_sizes=_BLOCKS,
            smallest_depth=64,
            smallest_width=64,
            forbidden=reasons.ARM,
        ),
        Target(
            name="arm-i8mm",
            title="64-bit Arm with 8-bit matrix products",
            activation_type="int8",
            block_bits=(8, 4),
            block_sizes=_BLOCKS,
            smallest_depth=64,
            smallest_width=64,
            forbidden=reasons.ARM,
            costs=KernelCosts(integer_macs=340_000.0),
            opening=opening.ARM_BFLOAT16,
        ),
        Target(
            name="openvino",
            title="OpenVINO on x86",
            provider="openvino",
            format="qdq",
            forbidden=reasons.OPENVINO,
            costs=COMPILED,
            opening=opening.OPENVINO,
        ),
        Target(
            name="cuda",
            title="ONNX Runtime's CUDA provider",
            provider="cuda",
            format="weight-only",
            activation_type=None,
            block_bits=(8, 4),
            block_sizes=_CUDA_BLOCKS,
            bias_type="float16",
            float_type="float16",
            smallest_depth=32,
            smallest_width=32,
            forbidden=reasons.CUDA,
            costs=COMPILED,
        ),
        Target(
            name="tensorrt",
            title="TensorRT",
            provider="tensorrt",
            format="qdq",
            activation_type="int8",
            activation_symmetric=True,
            bias_type="float16",
            float_type="float16",
            float_kept=_NORMS,
            quantized_attention=True,
            forbidden=reasons.TENSORRT,
            costs=COMPILED,
            opening=opening.TENSORRT,
        ),
        Target(
            name="qdq",
            title="any runtime that reads Q/DQ",
            provider="any",
            format="qdq",
            bias_type="int32",
            forbidden=reasons.STANDARD,
            costs=COMPILED,
        ),
        Target(
            name="qdq-symmetric",
            title="accelerators that want int8 Q/DQ",
            provider="any",
            format="qdq",
            activation_type="int8",
            activation_symmetric=True,
            bias_type="int32",
            forbidden=reasons.SYMMETRIC,
            costs=COMPILED,
        ),
    )
}

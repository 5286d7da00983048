"""Targets as data: which operand types have a fast kernel, from what size it pays, and what never does.

From the GEMM dispatch of ONNX Runtime's MLAS (``core/mlas/lib/platform.cpp``) and measurements on its CPU
provider. A target says what to emit; whether a linear really got its kernel is confirmed after emission.

Arm gets uint8 activations too, though it multiplies signed numbers as well: MLAS packs int8 weights for udot
and ummla (its dispatch for uint8 activations), which do as much in one instruction as sdot and smmla, and
codes that need not be symmetric waste none of a one-sided range. None of that was timed here. Accelerators
that take int8 Q/DQ alone are a target of their own.

The smallest sizes of x86-vnni were measured (Zen 4, one thread, QuantizeLinear counted): at K = N = 64
INT8 takes as long as float for 16 rows and 0.65 of it for 128; a single row needs K = N = 256. At 32 it
gains little, since QuantizeLinear and the call cost about 1.5 us. Those of the other processors are
estimates.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnxq.errors import UsageProblem
from onnxq.runtime.machine import Machine
from onnxq.targets.costs import COMPILED, KernelCosts

_FLOAT_ONLY = "there is no INT8 kernel for it on CPUs, and quantizing around it only costs"
_COMMON = {
    "quantized-product-output": "a product with a float output is as fast and more accurate",
    "weight-scale-per-row": "scales per row of a weight are computed wrongly or not at all",
    "activation-scale-per-channel": "no kernel takes activations with more than one scale",
    "dequantized-table": "DequantizeLinear in front of Gather dequantizes the whole table at every run",
    "quantized-softmax": "QLinearSoftmax is scalar, several times slower than Softmax",
    "quantized-norm": _FLOAT_ONLY,
    "quantized-gelu": _FLOAT_ONLY,
    "quantized-residual": "QLinearAdd is no faster than Add, and rounds the residual stream",
}
_X86 = _COMMON | {
    "signed-activation": "int8 activations run in a scalar kernel, a fifth of the speed of float",
    "unsigned-weight": "uint8 weights miss the VNNI kernel and run at less than half its speed",
    "skip-layer-norm": "SkipLayerNormalization is scalar; keep Add and LayerNormalization apart",
}
_ARM = _COMMON | {"asymmetric-weight": "a weight zero point other than 0 misses the packed kernels"}
# Accelerators read Q/DQ around a residual and refuse other things, so the CPU's list does not bind them.
_PORTABLE = {
    name: _COMMON[name]
    for name in ("weight-scale-per-row", "activation-scale-per-channel", "dequantized-table")
}


@dataclass(frozen=True)
class Target:
    """The low-precision form that one kind of processor runs fastest.

    Attributes:
        name: What it is called on the command line.
        title: What it is, in words.
        activation_type: Integer type of quantized activations.
        activation_symmetric: Whether their zero point is the middle of the type.
        weight_bits: Bits of the int8 weights that are used; 7 where 16-bit sums would saturate.
        format: "kernel" for ONNX Runtime's own integer operators, "qdq" for standard Q/DQ pairs.
        smallest_depth: Least K (rows of the weight) from which INT8 pays.
        smallest_width: Least N (columns of the weight) from which INT8 pays.
        forbidden: Forms never to emit, by slug, with the reason.
        costs: What operators take, to weigh forms by.
    """

    name: str
    title: str
    activation_type: Literal["uint8", "int8"]
    activation_symmetric: bool
    weight_bits: Literal[7, 8]
    format: Literal["kernel", "qdq"]
    smallest_depth: int
    smallest_width: int
    forbidden: Mapping[str, str] = field(default_factory=dict, hash=False)
    costs: KernelCosts = field(default_factory=KernelCosts)

    def pays(self, depth: int, width: int) -> bool:
        """Whether a linear with a weight [depth, width] gains from INT8."""
        return depth >= self.smallest_depth and width >= self.smallest_width

    @property
    def largest_weight(self) -> int:
        """The largest magnitude of a quantized weight: 127, or 63 with 7 bits."""
        return (1 << (self.weight_bits - 1)) - 1


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("x86-vnni", "x86 with 8-bit dot products", "uint8", False, 8, "kernel", 64, 64, _X86),
        Target("x86-avx2", "x86 without 8-bit dot products", "uint8", False, 7, "kernel", 128, 128, _X86),
        Target("arm-dot", "64-bit Arm with 8-bit dot products", "uint8", False, 8, "kernel", 64, 64, _ARM),
        Target("qdq", "any runtime that reads Q/DQ", "uint8", False, 8, "qdq", 16, 16, _PORTABLE, COMPILED),
        Target(
            "qdq-symmetric",
            "accelerators that want int8 Q/DQ",
            "int8",
            True,
            8,
            "qdq",
            16,
            16,
            _PORTABLE,
            COMPILED,
        ),
    )
}


def detect(machine: Machine) -> Target:
    """The target that fits a machine; plain Q/DQ where nothing is known about it."""
    if machine.architecture == "x86_64":
        if machine.has("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"):
            return TARGETS["x86-vnni"]
        return TARGETS["x86-avx2"]
    if machine.architecture == "aarch64" and machine.has("asimddp", "i8mm"):
        return TARGETS["arm-dot"]
    return TARGETS["qdq"]


def find(name: str) -> Target:
    """The target of a name.

    Raises:
        UsageProblem: There is no such target; the hint names the nearest.
    """
    if name in TARGETS:
        return TARGETS[name]
    near = difflib.get_close_matches(name.lower(), TARGETS, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise UsageProblem(
        f"no target {name!r}", hint=f"{guess}targets: {', '.join(TARGETS)}", slug="unknown-target"
    )

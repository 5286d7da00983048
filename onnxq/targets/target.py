"""What a target is: the low-precision form that a kind of processor runs fastest, and what it never takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnxq.targets.costs import KernelCosts
from onnxq.targets.opening import OpeningOption

Format = Literal["kernel", "qdq", "weight-only"]
Provider = Literal["cpu", "openvino", "cuda", "tensorrt", "any"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The low-precision form that one kind of processor runs fastest.

    Attributes:
        name: What it is called on the command line.
        title: What it is, in words.
        provider: The runtime that it is for; "any" for whatever reads standard ONNX.
        format: "kernel" for ONNX Runtime's own integer operators, "qdq" for standard Q/DQ pairs,
            "weight-only" for products with weights in blocks and activations that stay float.
        activation_type: Integer type of quantized activations; None where they stay float.
        activation_symmetric: Whether their zero point is 0.
        weight_bits: Bits of the int8 weights that are used; 7 where 16-bit sums would saturate.
        block_bits: Bits of weights in blocks, the most accurate first; none where nothing multiplies them.
        block_sizes: Input channels that may share a scale in blocks.
        bias_type: How the bias of a product is stored: "float32" and "float16" are added behind it, "int32"
            may stand behind DequantizeLinear.
        float_type: What everything that is not an integer is computed in.
        float_kept: Operators that are computed in float32 all the same.
        quantized_attention: Whether both operands of attention's products are quantized as well.
        smallest_depth: Least K (rows of the weight) from which INT8 pays.
        smallest_width: Least N (columns of the weight) from which INT8 pays.
        forbidden: Forms never to emit, by slug (those of `onnxq.targets.rules`), with the reason.
        costs: What operators take, to weigh forms by.
        opening: What the runtime has to be told when it opens a file.
    """

    name: str
    title: str
    provider: Provider = "cpu"
    format: Format = "kernel"
    activation_type: Literal["uint8", "int8"] | None = "uint8"
    activation_symmetric: bool = False
    weight_bits: Literal[7, 8] = 8
    block_bits: tuple[Literal[4, 8], ...] = ()
    block_sizes: tuple[int, ...] = ()
    bias_type: Literal["float32", "float16", "int32"] = "float32"
    float_type: Literal["float32", "float16"] = "float32"
    float_kept: tuple[str, ...] = ()
    quantized_attention: bool = False
    smallest_depth: int = 16
    smallest_width: int = 16
    forbidden: Mapping[str, str] = field(default_factory=dict, hash=False)
    costs: KernelCosts = field(default_factory=KernelCosts)
    opening: tuple[OpeningOption, ...] = ()

    def pays(self, depth: int, width: int) -> bool:
        """Whether a linear with a weight [depth, width] gains from low precision."""
        return depth >= self.smallest_depth and width >= self.smallest_width

    @property
    def activation_codes(self) -> Literal["asymmetric", "signed", "symmetric"]:
        """How activations are coded, in the words of `quantize-linears`."""
        if self.activation_symmetric:
            return "symmetric"
        return "signed" if self.activation_type == "int8" else "asymmetric"

    @property
    def confirmable(self) -> bool:
        """Whether ONNX Runtime's CPU provider has kernels for its form, so that what it makes of it tells."""
        return self.provider in ("cpu", "any") and not self.activation_symmetric

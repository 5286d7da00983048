"""Exact passes that choose the spelling which the target's runtime executes fastest."""

from __future__ import annotations

from typing import Literal

from onnxq.contract import AnyPass

BEFORE_ROUNDING = ("pick-by-slice", "move-nan-guard", "stack-heads", "respell-rms-norm", "sum-before-norm")
"""Re-spellings in standard operators. They come after migration, which reads residuals as exporters write
them, and before rounding, whose steps would blow up what a reassociation changes in the last bit."""
KERNELS_BEFORE_ROUNDING = (
    "fold-layer-scale",
    "fold-batch-norm",
    "phase-transposed-convs",
    "narrow-before-upsampling",
    "raise-for-attention",
    "fuse-attention",
    "fuse-gelu",
    "fuse-rotary",
)
"""Those that need ONNX Runtime's own operators, or are for its kernels alone; they come first."""
AFTER_ROUNDING: tuple[str, ...] = (
    "move-codes",
    "cancel-across",
    "cancel-transposes",
    "gather-dequantized",
    "fold-row-factor",
    "sub-before-norm",
)
"""Re-spellings of what rounding emitted, bit for bit."""
COMPILED_BEFORE_ROUNDING = ("compute-picked", "move-nan-guard", "sum-before-norm", "fold-factor")
"""Those for runtimes that compile the graph, OpenVINO and TensorRT, which know the usual spellings."""
COMPILED_AFTER_ROUNDING = ("hoist-rounding",)

Audience = Literal["kernels", "standard", "compiled", "fusing"]
"""Who reads the graph: ONNX Runtime's CPU kernels, anybody, a compiler, or a provider whose own fusions, such
as those of CUDA, want the spellings of exporters."""


def respelling(audience: Audience) -> tuple[AnyPass, ...]:
    """What is re-spelled before rounding."""
    names = {
        "kernels": (*KERNELS_BEFORE_ROUNDING, *BEFORE_ROUNDING),
        "standard": BEFORE_ROUNDING,
        "compiled": COMPILED_BEFORE_ROUNDING,
        "fusing": (),
    }
    return _passes(names[audience])


def finishing(audience: Audience) -> tuple[AnyPass, ...]:
    """What is re-spelled after rounding; little where only standard operators may appear."""
    names = {"kernels": AFTER_ROUNDING, "compiled": COMPILED_AFTER_ROUNDING}
    return _passes(names.get(audience, ()))


def _passes(names: tuple[str, ...]) -> tuple[AnyPass, ...]:
    from onnxq.passes import registry

    return tuple(registry()[name]() for name in names)

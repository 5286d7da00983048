"""Exact passes that choose the spelling which the target's runtime executes fastest."""

from __future__ import annotations

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
AFTER_ROUNDING: tuple[str, ...] = ("move-codes", "cancel-across", "cancel-transposes", "sub-before-norm")
"""Re-spellings of what rounding emitted, bit for bit."""
COMPILED_BEFORE_ROUNDING = ("fold-factor",)
"""Those for runtimes that compile the graph, OpenVINO and TensorRT."""
COMPILED_AFTER_ROUNDING = ("hoist-rounding",)


def respelling(*, kernels: bool, compiled: bool = False) -> tuple[AnyPass, ...]:
    """What is re-spelled before rounding.

    Args:
        kernels: Whether ONNX Runtime's own operators may appear.
        compiled: Whether it is for a runtime that compiles the graph.
    """
    own = KERNELS_BEFORE_ROUNDING if kernels else ()
    return _passes((*own, *BEFORE_ROUNDING, *(COMPILED_BEFORE_ROUNDING if compiled else ())))


def finishing(*, kernels: bool, compiled: bool = False) -> tuple[AnyPass, ...]:
    """What is re-spelled after rounding; little where only standard operators may appear."""
    return _passes((*(AFTER_ROUNDING if kernels else ()), *(COMPILED_AFTER_ROUNDING if compiled else ())))


def _passes(names: tuple[str, ...]) -> tuple[AnyPass, ...]:
    from onnxq.passes import registry

    return tuple(registry()[name]() for name in names)

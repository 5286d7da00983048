"""Exact passes that choose the spelling which the target's runtime executes fastest."""

from __future__ import annotations

from onnxq.contract import AnyPass

BEFORE_ROUNDING = ("move-nan-guard", "sum-before-norm")
"""Re-spellings in standard operators. They come after migration, which reads residuals as exporters write
them, and before rounding, whose steps would blow up what a reassociation changes in the last bit."""
KERNELS_BEFORE_ROUNDING = ("fuse-gelu",)
"""Those that need ONNX Runtime's own operators; they come first."""
AFTER_ROUNDING: tuple[str, ...] = ()
"""Re-spellings of what rounding emitted, bit for bit."""


def respelling(*, kernels: bool) -> tuple[AnyPass, ...]:
    """What is re-spelled before rounding.

    Args:
        kernels: Whether ONNX Runtime's own operators may appear.
    """
    return _passes((*(KERNELS_BEFORE_ROUNDING if kernels else ()), *BEFORE_ROUNDING))


def finishing(*, kernels: bool) -> tuple[AnyPass, ...]:
    """What is re-spelled after rounding; nothing where only standard operators may appear."""
    return _passes(AFTER_ROUNDING if kernels else ())


def _passes(names: tuple[str, ...]) -> tuple[AnyPass, ...]:
    from onnxq.passes import registry

    return tuple(registry()[name]() for name in names)

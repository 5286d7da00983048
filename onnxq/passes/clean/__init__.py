"""Exact passes that take away what an exporter left behind and give compound operators their names back."""

from __future__ import annotations

from onnxq.contract import AnyPass

CLEANING = (
    "inline-functions",
    "infer-shapes",
    "drop-identity",
    "drop-dropout",
    "drop-casts",
    "fold-constants",
    "infer-shapes",
    "fold-constants",
    "cancel-transposes",
    "merge-reshapes",
    "recompose-layer-norm",
    "recompose-rms-norm",
    "recompose-gelu",
    "share-constants",
    "drop-unused",
)
"""The exact cleaning pipeline, by name. Types come early, for others read them, and again after folding."""


def cleaning(opset: int | None = None) -> tuple[AnyPass, ...]:
    """The passes of `CLEANING`.

    Args:
        opset: Raise the default operator set to this version first, so that the operators that the
            recompositions need exist. None leaves it: a new opset shows to whoever runs the model.
    """
    from onnxq.passes import registry
    from onnxq.passes.clean.raise_opset import RaiseOpset

    passes = [registry()[name]() for name in CLEANING]
    return tuple(passes) if opset is None else (*passes[:2], RaiseOpset(opset), *passes[2:])

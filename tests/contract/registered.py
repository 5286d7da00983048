"""Every pass that comes with onnxq, and every example it brings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import onnxq.passes
from onnxq.contract import AnyPass, ModelPass, Pass


def written() -> dict[str, type[AnyPass]]:
    """Pass classes found in the package, by name."""
    found: dict[str, type[AnyPass]] = {}
    for module in pkgutil.walk_packages(onnxq.passes.__path__, "onnxq.passes."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, Pass | ModelPass) and not inspect.isabstract(kind) and hasattr(kind, "name"):
                found[kind.name] = kind
    return dict(sorted(found.items()))


PASSES = written()


def parameters(side: str) -> list[object]:
    """Every example of every pass on that side ("fires" or "holds")."""
    return [
        pytest.param(kind, example, id=f"{name}-{index}")
        for name, kind in PASSES.items()
        for index, example in enumerate(getattr(kind.examples(), side))
    ]

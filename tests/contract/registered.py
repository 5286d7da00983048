"""Every pass that comes with onnxq, and every example it brings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import onnxq.passes
from onnxq.contract import AnyPass, ModelPass, Pass

BROKEN: dict[str, str] = {}
"""Modules that cannot be imported, and why: a test's failure, not the whole suite's."""


def written() -> dict[str, type[AnyPass]]:
    """Pass classes found in the package, by name."""
    found: dict[str, type[AnyPass]] = {}
    for info in pkgutil.walk_packages(onnxq.passes.__path__, "onnxq.passes."):
        try:
            module = importlib.import_module(info.name)
        except ImportError as error:
            BROKEN[info.name] = str(error)
            continue
        for _, kind in inspect.getmembers(module, inspect.isclass):
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

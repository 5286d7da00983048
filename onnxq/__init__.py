"""onnxq: a graph-rewriting ONNX optimizer. Exact passes, measured INT8, and the evidence for both.

    import onnxq
    result = onnxq.optimize("model.onnx", "calib.npz")
    result.save("model.int8.onnx")

Everything is imported when it is first used, so that `import onnxq` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxq.api import apply, bench, calibrate, compare, doctor, inspect, optimize, session
    from onnxq.errors import OnnxqError
    from onnxq.files import load, save
    from onnxq.recipe import BenchSettings, DataSettings, OptimizeSettings

_HOMES = {
    "apply": "onnxq.api",
    "bench": "onnxq.api",
    "calibrate": "onnxq.api",
    "compare": "onnxq.api",
    "doctor": "onnxq.api",
    "inspect": "onnxq.api",
    "optimize": "onnxq.api",
    "session": "onnxq.api",
    "OnnxqError": "onnxq.errors",
    "load": "onnxq.files",
    "save": "onnxq.files",
    "BenchSettings": "onnxq.recipe",
    "DataSettings": "onnxq.recipe",
    "OptimizeSettings": "onnxq.recipe",
}

__all__ = [
    "BenchSettings",
    "DataSettings",
    "OnnxqError",
    "OptimizeSettings",
    "apply",
    "bench",
    "calibrate",
    "compare",
    "doctor",
    "inspect",
    "load",
    "optimize",
    "save",
    "session",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxq' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

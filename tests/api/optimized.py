"""The digits and the smallest model, optimized in a hurry."""

from __future__ import annotations

from functools import cache
from typing import Any

import onnxq.demo
from onnxq.api import OptimizeResult, optimize
from onnxq.recipe import OptimizeSettings
from tests.api import models

QUICK = {"threads": 1, "effort": "fast", "verify": "never"}


@cache
def digits() -> OptimizeResult:
    settings = OptimizeSettings(threads=1, effort="fast", target="x86-vnni")
    return optimize(onnxq.demo.model_path(), onnxq.demo.load_calibration(), settings=settings)


def tiny(**given: Any) -> OptimizeResult:
    settings = OptimizeSettings(**(QUICK | {"target": "qdq"} | given))
    return optimize(models.small(), models.small_data(), settings=settings)

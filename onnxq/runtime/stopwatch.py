"""Timing in a worker of this machine: the stopwatch of `onnxq.runtime.remote`, its complaints as errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxq.errors import BackendError
from onnxq.runtime.native import import_onnxruntime, refusal
from onnxq.runtime.providers import not_started
from onnxq.runtime.remote import stopwatch


def time_runs(job: dict[str, Any]) -> dict[str, Any]:
    """As `onnxq.runtime.remote.stopwatch.time_runs`; ``times_ns`` is int64 [runs]."""
    import_onnxruntime()
    try:
        found = stopwatch.time_runs(job)
    except stopwatch.Failure as failure:
        raise dressed(failure.stage, str(failure)) from None
    return {**found, "times_ns": np.array(found["times_ns"], np.int64)}


def trace_runs(job: dict[str, Any], runs: int) -> list[dict[str, Any]]:
    """As `onnxq.runtime.remote.stopwatch.trace_runs`."""
    import_onnxruntime()
    try:
        return stopwatch.trace_runs(job, runs)
    except stopwatch.Failure as failure:
        raise dressed(failure.stage, str(failure)) from None


def dressed(stage: str, text: str, where: str = "") -> BackendError:
    """The error for what the runtime said while it did `stage`, on this machine or on another."""
    if stage == "provider":
        return not_started(text, where)
    if stage == "affinity":
        return BackendError(
            f"a process cannot keep to the processors {text}", hint="--affinity 0,2-4", slug="no-processor"
        )
    return refusal(Exception(text), "load" if stage == "load" else "run")

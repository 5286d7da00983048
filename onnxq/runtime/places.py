"""Where models are timed: here, in a worker process each time. `onnxq.runtime.device` is another place."""

from __future__ import annotations

import platform
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from onnxq.runtime.isolate import Worker
from onnxq.runtime.machine import Machine, processors_for, read_machine
from onnxq.runtime.stopwatch import time_runs, trace_runs

Job = dict[str, Any]
"""What `onnxq.runtime.remote.stopwatch` is told."""


class Place(Protocol):
    """A machine that times models, a fresh process for each call."""

    @property
    def name(self) -> str:
        """What to call it; "" for this machine."""

    @property
    def machine(self) -> Machine:
        """What there is to compute with."""

    @property
    def python(self) -> str:
        """Version of Python there."""

    def bring(self, model: Path) -> str:
        """Make a model available there, with its external data; its path there."""

    def processors_for(self, threads: int) -> list[int]:
        """Processors to pin so many threads to; empty where pinning makes no sense."""

    def time(self, job: Job, limit: float) -> dict[str, Any]:
        """`time_runs`, in `limit` seconds at most."""

    def trace(self, job: Job, runs: int, limit: float) -> list[dict[str, Any]]:
        """`trace_runs`, in `limit` seconds at most."""


class Here:
    """This machine."""

    name = ""
    python = platform.python_version()

    @cached_property
    def machine(self) -> Machine:
        """This machine."""
        return read_machine()

    def bring(self, model: Path) -> str:
        """The path as it is."""
        return str(model)

    def processors_for(self, threads: int) -> list[int]:
        """Processors of different cores first."""
        return processors_for(threads)

    def time(self, job: Job, limit: float) -> dict[str, Any]:
        """Time a model in a worker process.

        Raises:
            BackendError: The model does not open or run, or the process crashed or took too long.
        """
        with Worker(timeout=limit) as worker:
            found: dict[str, Any] = worker.call(time_runs, job=job)
            return found

    def trace(self, job: Job, runs: int, limit: float) -> list[dict[str, Any]]:
        """Trace a model in a worker process; errors as `time`."""
        with Worker(timeout=limit) as worker:
            found: list[dict[str, Any]] = worker.call(trace_runs, job=job, runs=runs)
            return found

"""The part of timing that runs in a worker: one model, one process, nothing else going on in it."""

from __future__ import annotations

import gc
import json
import os
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.runtime.session import Feeds, Session, open_session
from onnxq.runtime.settings import from_fields

_LEAST_RUNS = 5
_MOST_RUNS = 20_000
_KERNEL = re.compile("_kernel_time$")


def time_runs(
    model: str, settings: dict[str, Any], feeds: dict[str, Any], seconds: float, cpus: list[int]
) -> dict[str, Any]:
    """Open a model, warm it up and run it for some time.

    Args:
        model: Path of the model.
        settings: As `onnxq.runtime.settings.to_fields` gives them.
        feeds: An array for each input.
        seconds: How long to measure; the warm-up takes a third of it on top, and at least two runs.
        cpus: Processors this process keeps to; any if empty.

    Returns:
        ``times_ns``: int64 [runs]; ``load_ms``; ``peak_rss_mb`` of this process, 0 where it cannot be told.
    """
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    start = time.perf_counter_ns()
    session = open_session(model, from_fields(settings))
    load_ms = (time.perf_counter_ns() - start) / 1e6
    gc.collect()
    gc.disable()
    _run_for(session, feeds, seconds / 3, least=2)
    times = _run_for(session, feeds, seconds, least=_LEAST_RUNS)
    return {"times_ns": np.array(times, np.int64), "load_ms": load_ms, "peak_rss_mb": _peak_rss_mb()}


def trace_runs(
    model: str, settings: dict[str, Any], feeds: dict[str, Any], runs: int
) -> list[dict[str, Any]]:
    """Run a model with the runtime's tracing on.

    Returns:
        One entry for each execution of an operator in `runs` + 1 runs, in order: node, op, provider, index in
        the optimised graph, us.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        session = open_session(model, replace(from_fields(settings), profile_to=Path(folder)))
        for _ in range(runs + 1):
            session.run(feeds)
        events = json.loads(Path(session.native.end_profiling()).read_text())
    kernels = (event for event in events if event.get("cat") == "Node" and _KERNEL.search(event["name"]))
    return [_entry(event) for event in kernels]


def _entry(event: dict[str, Any]) -> dict[str, Any]:
    details = event["args"]
    return {
        "node": _KERNEL.sub("", event["name"]),
        "op": details["op_name"],
        "provider": details.get("provider", ""),
        "index": int(details.get("node_index", -1)),
        "us": float(event["dur"]),
    }


def _run_for(session: Session, feeds: Feeds, seconds: float, least: int) -> list[int]:
    """Run for some seconds and at least some times; nanoseconds of each run."""
    clock, times = time.perf_counter_ns, list[int]()
    end = clock() + int(seconds * 1e9)
    while len(times) < least or (clock() < end and len(times) < _MOST_RUNS):
        start = clock()
        session.run(feeds)
        times.append(clock() - start)
    return times


def _peak_rss_mb() -> float:
    """Largest resident memory of this process; `getrusage` would give a child that of its parent."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0

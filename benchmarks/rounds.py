"""Latency in rounds that can be spread over hours: a fresh process each contestant and round, in turns.

What a round measured is kept with what earlier rounds did, so that a busy machine can be asked for a minute
now and another one later. Every contestant is timed by the same loop (`benchmarks.running`), in its own
environment.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import Runtime
from benchmarks.data import save
from benchmarks.environments import variables
from benchmarks.export import Arrays
from onnxq.runtime.machine import processors_for

Process = dict[str, Any]
"""What one process measured: `least_ms`, `median_ms`, `runs`, `load_ms`, `peak_rss_mb`; and its `round`."""
THREADS = 2


@dataclass(frozen=True)
class Entry:
    """A file to time, and what runs it."""

    model: Path
    runtime: Runtime

    def spec(self, **more: Any) -> str:
        """What `benchmarks.running` is told."""
        fields = {"runtime": self.runtime.name, "model": str(self.model), "threads": THREADS}
        return json.dumps({**fields, "settings": dict(self.runtime.settings), **more})


def time_round(
    entries: Mapping[str, Entry], feeds: Arrays, seconds: float, *, backwards: bool
) -> dict[str, Process]:
    """Time every entry once.

    Args:
        entries: By contestant.
        feeds: One batch.
        seconds: Measured time of each; the warm-up takes a third of it on top.
        backwards: Whether the last one begins.

    Returns:
        What each process measured, or its `failure`.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq-round-") as scratch:
        file = Path(scratch) / "feeds.npz"
        save(file, feeds)
        more = {"feeds": str(file), "seconds": seconds, "cpus": processors_for(THREADS)}
        return {
            name: _time_one(entry, more) for name, entry in list(entries.items())[:: -1 if backwards else 1]
        }


def _time_one(entry: Entry, more: Mapping[str, Any]) -> Process:
    command = [entry.runtime.python, "-m", "benchmarks.running", "time", entry.spec(**more)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables())
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failure": lines[-1]}
    found: Process = json.loads(done.stdout)
    return found


def summarize(processes: list[Process]) -> dict[str, Any]:
    """What the processes of one contestant say together.

    Returns:
        `least_ms` of all runs, `median_ms` of the processes' medians, their `spread` (range over median),
        counts, and the processes themselves.
    """
    medians = [each["median_ms"] for each in processes]
    middle = float(np.median(medians))
    return {
        "least_ms": min(each["least_ms"] for each in processes),
        "median_ms": middle,
        "spread": (max(medians) - min(medians)) / middle,
        "runs": sum(each["runs"] for each in processes),
        "load_ms": min(each["load_ms"] for each in processes),
        "peak_rss_mb": max(each["peak_rss_mb"] for each in processes),
        "processes": processes,
    }


def append(rows: Mapping[str, dict[str, Any]], shape: str, measured: Mapping[str, Process]) -> None:
    """Add a round to the rows of a result, and state every latency as a ratio to fp32's."""
    base = rows["fp32"].get("latency", {}).get(shape)
    turn = len(base["processes"]) if base else 0
    for name, process in measured.items():
        if "failure" in process:
            rows[name]["failure"] = process["failure"]
            continue
        held = rows[name].setdefault("latency", {})
        held[shape] = summarize([*held.get(shape, {}).get("processes", []), {"round": turn, **process}])
    base = rows["fp32"].get("latency", {}).get(shape)
    for row in rows.values():
        latency = row.get("latency", {}).get(shape)
        if base and latency:
            latency["speedup_least"] = base["least_ms"] / latency["least_ms"]
            latency["speedup_median"] = base["median_ms"] / latency["median_ms"]


def ratio_by_rounds(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float | None:
    """Our time over theirs, the median of the rounds that both were in.

    A machine that is slow for a while is slow for both, so that this is steadier than a ratio of medians.
    """
    own, others = (
        {each["round"]: each["median_ms"] for each in latency.get("processes", ())}
        for latency in (ours, theirs)
    )
    found = [own[turn] / others[turn] for turn in own if turn in others]
    return float(np.median(found)) if found else None

"""Latency that can be compared: each model in processes of its own, taking turns, stated as a ratio.

A process of ONNX Runtime can be slow for its whole life, for reasons outside the model, and a busy machine
slows whoever runs at that moment. So each model gets several fresh processes in alternated order; the least
time is the steadiest figure, and the medians of the processes tell how far to trust it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.errors import UsageProblem
from onnxq.runtime.delivery import deliver, discard
from onnxq.runtime.feeds import Shapes, feeds_for
from onnxq.runtime.isolate import Worker
from onnxq.runtime.machine import processors_for
from onnxq.runtime.session import Feeds
from onnxq.runtime.settings import SessionSettings, to_fields
from onnxq.runtime.stopwatch import time_runs, trace_runs


@dataclass(frozen=True)
class Contender:
    """A model to time under settings of its own, such as fp32 without a harmful fusion."""

    model: ir.Model | Path | str
    settings: SessionSettings


@dataclass(frozen=True)
class Latency:
    """How long one model takes.

    Attributes:
        threads: Threads inside one operator.
        least_ms: The fastest run of all processes.
        median_ms: The median over the processes of their median runs.
        spread: Range of the processes' medians over `median_ms`; differences below it mean nothing.
        quartiles_ms: Distance between the quartiles of all runs.
        process_medians_ms: The median run of each process, in the order they ran.
        runs: Timed runs in all processes.
        load_ms: The fastest opening of the model.
        peak_rss_mb: Largest memory of a process, Python and the runtime included.
        speedup_least: Least time of the first model over this one's; 2.0 is twice as fast.
        speedup_median: The same of `median_ms`.
    """

    threads: int
    least_ms: float
    median_ms: float
    spread: float
    quartiles_ms: float
    process_medians_ms: tuple[float, ...]
    runs: int
    load_ms: float
    peak_rss_mb: float
    speedup_least: float = 1.0
    speedup_median: float = 1.0

    @property
    def processes(self) -> int:
        """How many processes were timed."""
        return len(self.process_medians_ms)


@dataclass(frozen=True)
class NodeTime:
    """Time of one node: its operator, its provider and microseconds a run (its best run)."""

    node: str
    op: str
    provider: str
    us: float


@dataclass(frozen=True)
class Profile:
    """Where one run of a model spends its time.

    Attributes:
        nodes: One entry a node of the optimised graph, slowest first.
        by_op: Microseconds a run by operator, slowest first.
    """

    nodes: tuple[NodeTime, ...]
    by_op: Mapping[str, float]

    @property
    def us(self) -> float:
        """Microseconds in all operators."""
        return sum(self.by_op.values())


def measure_latency(
    models: Mapping[str, ir.Model | Path | str | Contender],
    feeds: Feeds | None = None,
    *,
    shapes: Shapes | None = None,
    threads: int = 1,
    rounds: int = 3,
    seconds: float = 1.5,
    provider: str = "cpu",
    timeout: float = 600.0,
) -> dict[str, Latency]:
    """Time models against the first of them.

    Args:
        models: By name; the first is what the others are compared with. A `Contender` brings its own
            settings, of which threads and provider are replaced by those given here.
        feeds: Inputs for all of them; None for random ones (`feeds_for`) of the given shapes.
        shapes: Shapes by input name, where `feeds` is None.
        threads: Threads inside one operator; the processes are pinned to as many cores where possible.
        rounds: Processes a model; every second round goes backwards.
        seconds: Measured time a process, after a warm-up.
        provider: Execution provider of all of them.
        timeout: Seconds that one process may take.

    Raises:
        BackendError: A model does not open or run, or its process crashed or took too long.
    """
    if not models or rounds < 1:
        raise UsageProblem("timing needs a model and a round", slug="nothing-to-time")
    with _files_of(models, threads, provider) as entries:
        given = {name: _feeds_of(*entries[name], feeds, shapes, timeout) for name in entries}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in entries}
        for turn in range(rounds):
            for name in list(entries)[:: -1 if turn % 2 else 1]:
                found[name].append(_time_in_fresh_process(*entries[name], given[name], seconds, timeout))
    return _compared({name: _latency(threads, results) for name, results in found.items()})


def profile(
    model: ir.Model | Path | str,
    feeds: Feeds | None = None,
    settings: SessionSettings | None = None,
    *,
    shapes: Shapes | None = None,
    runs: int = 10,
    timeout: float = 600.0,
) -> Profile:
    """Time every operator of a model, in a process of its own; each node's best of `runs` runs counts."""
    settings = settings or SessionSettings()
    with _file_of(model) as path:
        given = _feeds_of(path, settings, feeds, shapes, timeout)
        with Worker(timeout=timeout) as worker:
            arguments = {"model": path, "settings": to_fields(settings), "feeds": dict(given), "runs": runs}
            entries = worker.call(trace_runs, **arguments)
    return _profile_of(entries, runs + 1)


def _time_in_fresh_process(
    path: str, settings: SessionSettings, feeds: Feeds, seconds: float, timeout: float
) -> dict[str, Any]:
    with Worker(timeout=timeout) as worker:
        found: dict[str, Any] = worker.call(
            time_runs,
            model=path,
            settings=to_fields(settings),
            feeds=dict(feeds),
            seconds=seconds,
            cpus=processors_for(settings.threads),
        )
        return found


def _latency(threads: int, results: Sequence[Mapping[str, Any]]) -> Latency:
    times = [result["times_ns"] / 1e6 for result in results]
    medians = [float(np.median(each)) for each in times]
    everything = np.concatenate(times)
    low, high = np.percentile(everything, [25, 75])
    middle = float(np.median(medians))
    return Latency(
        threads=threads,
        least_ms=float(everything.min()),
        median_ms=middle,
        spread=(max(medians) - min(medians)) / middle,
        quartiles_ms=float(high - low),
        process_medians_ms=tuple(medians),
        runs=len(everything),
        load_ms=min(float(result["load_ms"]) for result in results),
        peak_rss_mb=max(float(result["peak_rss_mb"]) for result in results),
    )


def _compared(found: Mapping[str, Latency]) -> dict[str, Latency]:
    first = next(iter(found.values()))
    return {
        name: replace(
            each,
            speedup_least=first.least_ms / each.least_ms,
            speedup_median=first.median_ms / each.median_ms,
        )
        for name, each in found.items()
    }


def _profile_of(entries: Sequence[Mapping[str, Any]], runs: int) -> Profile:
    """Sum the executions of each node within a run, and take its best run but the first."""
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["index"], entry["node"]), []).append(entry)
    nodes = []
    for (_, node), group in groups.items():
        times = np.array([entry["us"] for entry in group])
        if len(times) % runs:  # executed a different number of times in each run
            us = float(times.sum()) / runs
        else:
            us = float(times.reshape(runs, -1).sum(axis=1)[min(1, runs - 1) :].min())
        nodes.append(NodeTime(node, group[0]["op"], group[0]["provider"], us))
    nodes.sort(key=lambda each: (-each.us, each.node))
    totals: dict[str, float] = {}
    for each in nodes:
        totals[each.op] = totals.get(each.op, 0.0) + each.us
    return Profile(tuple(nodes), dict(sorted(totals.items(), key=lambda item: (-item[1], item[0]))))


def _feeds_of(
    path: str, settings: SessionSettings, feeds: Feeds | None, shapes: Shapes | None, timeout: float
) -> Feeds:
    """The given feeds, or random ones for the inputs that a worker sees."""
    if feeds is not None:
        return feeds
    with Worker(timeout=timeout) as worker, worker.open(path, settings) as session:
        return feeds_for(session.inputs, shapes)


@contextlib.contextmanager
def _files_of(
    models: Mapping[str, ir.Model | Path | str | Contender], threads: int, provider: str
) -> Iterator[dict[str, tuple[str, SessionSettings]]]:
    """Each model as a file, with its settings."""
    with contextlib.ExitStack() as stack:
        entries = {}
        for name, model in models.items():
            contender = model if isinstance(model, Contender) else Contender(model, SessionSettings())
            path = stack.enter_context(_file_of(contender.model))
            entries[name] = (path, replace(contender.settings, threads=threads, provider=provider))
        yield entries


@contextlib.contextmanager
def _file_of(model: ir.Model | Path | str) -> Iterator[str]:
    source, folder = deliver(model)
    try:
        if isinstance(source, str):
            yield source
            return
        with tempfile.TemporaryDirectory(prefix="onnxq-") as place:
            path = Path(place) / "model.onnx"
            path.write_bytes(source)
            yield str(path)
    finally:
        discard(folder)

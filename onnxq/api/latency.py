"""Latency of several models, worth trusting."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from onnxq.api import records
from onnxq.api.stage import Progress, silent
from onnxq.files import load
from onnxq.recipe import BenchSettings
from onnxq.report.results import BenchResult
from onnxq.runtime import measure_latency

NOISY = 0.25
"""Range of the processes' medians over their median, above which a figure says little."""


def bench(
    models: Sequence[str | Path] | Mapping[str, ir.Model],
    settings: BenchSettings | None = None,
    *,
    progress: Progress | None = None,
) -> BenchResult:
    """Time models, each in processes of its own and in alternated rounds, against the first of them.

    Args:
        models: Paths, or models by name. Paths are read through `onnxq.files` first.
        settings: Threads, shapes, rounds, provider.
        progress: Called with a stage in words, steps done and steps in all.
    """
    settings = settings or BenchSettings()
    threads = records.usable_threads(settings.threads)
    named: dict[str, ir.Model] = (
        dict(models)
        if isinstance(models, Mapping)
        else dict(zip(_names(models), map(load, models), strict=True))
    )
    (progress or silent)(f"timing {len(named)} models", 0, 0)
    found = measure_latency(
        named,
        shapes=settings.shapes or None,
        threads=threads,
        rounds=settings.rounds,
        seconds=settings.seconds,
        provider=settings.provider,
    )
    noisy = [name for name, latency in found.items() if latency.spread > NOISY]
    doubt = f"The processes of {', '.join(noisy)} disagree by over {NOISY:.0%}: quote the least times."
    return BenchResult(
        machine=records.machine_record(threads),
        timings=records.timing_rows(found, records.shape_label(settings.shapes) or "as the models say"),
        rounds=settings.rounds,
        provider=settings.provider,
        hints=(doubt,) if noisy else (),
    )


def _names(paths: Sequence[str | Path]) -> list[str]:
    """A name for each file: its own, and more of its path where two are called the same."""
    given = [Path(path) for path in paths]
    for depth in itertools.count(1):
        names = ["/".join(path.parts[-depth:]) for path in given]
        if len(set(names)) == len(names):
            return names
        if depth > max(len(path.parts) for path in given):
            return [f"{name} ({number})" for number, name in enumerate(names, 1)]
    raise AssertionError("counting never ends")

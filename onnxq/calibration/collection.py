"""Statistics of a model's values on a data set: streamed, and kept for the next time.

Nothing of a sample outlives its run except its statistics, so memory does not depend on the number of
samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnxq.calibration.cache import Cache, cache_key
from onnxq.calibration.gathering import MASKED, Gathering
from onnxq.calibration.instances import gather_examples
from onnxq.calibration.source import DataSource
from onnxq.calibration.taps import MEMORY, NO_FLOATS, Report, find_targets, observe
from onnxq.statistics import Statistic, Statistics, TensorStatistics


def collect(
    model: ir.Model,
    source: DataSource,
    wanted: Mapping[Statistic, Collection[str]],
    *,
    progress: Report | None = None,
    cache_dir: str | Path | None = None,
    cache: bool = True,
    memory: int = MEMORY,
    threads: int = 0,
) -> Statistics:
    """Statistics of values of `model` on `source`.

    Positions that an attention mask excludes do not enter. A value that a run cannot show is left out, and
    `Statistics.skipped` says why: it is inside a subgraph or function, a constant, not of floats, or holds
    constants of an attention mask; the last two still have examples, if those are wanted. The result does not
    depend on the order of the samples, up to the rounding of the runtime and of second moments.

    Args:
        model: The model; not changed.
        source: Data for it, from `open_data`.
        wanted: Names of values, by the kind of statistic wanted of them.
        progress: Told the samples done and to do, after each run.
        cache_dir: Where results are kept; None for the platform's cache folder. A result is used again when
            the content of model and data and what is wanted are the same.
        cache: False to neither look for a kept result nor keep this one.
        memory: Bytes for the observed values of one run; more values mean more runs.
        threads: Threads of the runtime; 0 leaves it to the runtime.

    Raises:
        CalibrationError: The data cannot be read, or the model computes something that is not finite on it.
        BackendError: The runtime refuses the model or fails.
    """
    from onnxq.files import fingerprint

    kinds = _kinds_by_name(wanted)
    if not kinds:
        return Statistics()
    identity, data = fingerprint(model), source.fingerprint
    store = Cache(cache_dir) if cache else None
    key = cache_key(identity, data, kinds)
    kept = store.find(key) if store is not None else None
    if kept is not None:
        return kept
    measured = {name: each for name, each in kinds.items() if each != {Statistic.EXAMPLES}}
    collected = _collect(model, source, measured, memory=memory, threads=threads, progress=progress)
    shown = [name for name, each in kinds.items() if Statistic.EXAMPLES in each]
    collected = _with_examples(collected, model, source, shown, threads)
    found = Statistics(collected.tensors, collected.skipped, identity, frozenset({data}))
    if store is not None:
        store.keep(key, found)
    return found


def _collect(
    model: ir.Model,
    source: DataSource,
    kinds: Mapping[str, frozenset[Statistic]],
    *,
    memory: int,
    threads: int,
    progress: Report | None,
) -> Statistics:
    if not kinds:
        return Statistics()
    targets = find_targets(model, kinds)
    gathered: dict[str, Gathering] = {}
    for sighting in observe(model, source, targets, memory=memory, threads=threads, report=progress):
        if sighting.name not in gathered:
            gathered[sighting.name] = Gathering(kinds[sighting.name])
        gathered[sighting.name].add(sighting)
    tensors = {name: each.result() for name, each in gathered.items() if each.trouble != MASKED}
    skipped = {name: each.trouble for name, each in gathered.items() if each.trouble}
    unseen = {*targets.inputs, *targets.computed} - set(gathered)
    silent = dict.fromkeys(sorted(unseen), NO_FLOATS)
    return Statistics(tensors, {**targets.skipped, **silent, **skipped})


def _with_examples(
    found: Statistics, model: ir.Model, source: DataSource, names: Collection[str], threads: int
) -> Statistics:
    """`found` with examples of the values `names`."""
    if not names:
        return found
    shown, hidden = gather_examples(model, source, names, threads=threads)
    tensors = dict(found.tensors)
    for name, examples in shown.items():
        tensors[name] = replace(tensors.get(name, TensorStatistics(0)), examples=examples)
    return Statistics(tensors, {**hidden, **found.skipped})


def _kinds_by_name(wanted: Mapping[Statistic, Collection[str]]) -> dict[str, frozenset[Statistic]]:
    names = sorted({name for each in wanted.values() for name in each})
    return {name: frozenset(kind for kind, each in wanted.items() if name in each) for name in names}

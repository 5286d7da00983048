"""From what the parts of onnxq return to the plain records of a report."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.calibration import DataSource
from onnxq.contract import AnyPass, Change, Contract
from onnxq.files import fingerprint
from onnxq.ir.walk import nodes
from onnxq.pipeline import PipelineResult
from onnxq.recipe import GRAPHSURGEON, format_pass
from onnxq.report.measures import (
    DataSummary,
    Fidelity,
    JournalCount,
    Machine,
    ModelSummary,
    Rejection,
    Timing,
)
from onnxq.report.rows import Equality, PassRow, Verdict
from onnxq.runtime import Latency, read_machine
from onnxq.runtime import Machine as MachineRead
from onnxq.verify import Comparison
from onnxq.verify import Verdict as Judged


def usable_threads(asked: int | None, machine: MachineRead | None = None) -> int:
    """`asked`, or as many threads as there are processors to run them on, here or on `machine`."""
    if asked is not None:
        return asked
    machine = machine or read_machine()
    granted = machine.usable if machine.quota is None else max(1, int(machine.quota))
    return max(1, min(granted, machine.cores or granted))


def machine_record(threads: int, machine: MachineRead | None = None, python: str = "") -> Machine:
    """This machine, or another and its version of Python, and how many threads were measured."""
    machine = machine or read_machine()
    return Machine(
        cpu=machine.cpu,
        features=machine.features,
        cores=machine.usable,
        threads=threads,
        memory_bytes=machine.memory_bytes,
        system=f"{machine.system} {machine.architecture}",
        python=python or platform.python_version(),
        onnxruntime=machine.runtime.version if machine.runtime else "",
        onnxq=version(),
    )


def version() -> str:
    """Version of this package; "" where it runs from its source folder without being installed."""
    try:
        return metadata.version("onnxq")
    except metadata.PackageNotFoundError:
        return ""


def model_record(model: ir.Model, name: str, size_bytes: int | None = None) -> ModelSummary:
    """What identifies a model; its size in memory unless a size on disk is given."""
    count = sum(1 for _ in nodes(model))
    return ModelSummary(
        name=name,
        sha256=fingerprint(model),
        size_bytes=weight_bytes(model) if size_bytes is None else size_bytes,
        opset=int(model.opset_imports.get("", 0)),
        ir_version=model.ir_version,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        nodes=count,
    )


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def name_of(thing: Any, model: ir.Model) -> str:
    """What to call a model: its file's name, or its graph's."""
    if isinstance(thing, str | os.PathLike):
        return Path(thing).name
    return model.graph.name or "model"


def data_record(calibration: DataSource, held_out: DataSource) -> DataSummary:
    """Which data, and how it was divided."""
    return DataSummary(calibration.reader.origin, calibration.fingerprint, len(calibration), len(held_out))


def held_out_record(source: DataSource) -> DataSummary:
    """Data of which nothing was calibrated with."""
    return DataSummary(source.reader.origin, source.fingerprint, 0, len(source))


def fidelity_rows(comparison: Comparison) -> tuple[Fidelity, ...]:
    """One row an output."""
    return tuple(
        Fidelity(
            output=output.name,
            cosine_mean=output.cosine_mean,
            cosine_min=output.cosine_min,
            sqnr_db=output.sqnr_db,
            max_abs=output.max_abs,
            top1=output.top1,
        )
        for output in comparison.outputs.values()
    )


def timing_rows(latencies: Mapping[str, Latency], shape: str) -> tuple[Timing, ...]:
    """One row a model, the first being the reference of the others.

    The ratio is of least times: a process of ONNX Runtime can stay slow for its whole life, which moves
    medians and leaves the fastest run alone.
    """
    rows = []
    for index, (name, latency) in enumerate(latencies.items()):
        ratio = latency.speedup_least if index else None
        rows.append(
            Timing(
                model=name,
                shape=shape,
                threads=latency.threads,
                least_ms=latency.least_ms,
                median_ms=latency.median_ms,
                spread_ms=latency.quartiles_ms,
                ratio=ratio,
                ratio_low=latency.speedup_low if index and latency.verdict else None,
                ratio_high=latency.speedup_high if index and latency.verdict else None,
                verdict=latency.verdict,
                medians_ms=latency.process_medians_ms,
                runs=latency.runs,
            )
        )
    return tuple(rows)


def shape_label(shapes: Mapping[str, Sequence[int]]) -> str:
    """Shapes in words, e.g. ``"input_ids=8x128"``; the first input stands for all of the same shape.

    What has one number, such as a dimension, stands for itself alone.
    """
    told: dict[str, str] = {}
    for name, shape in shapes.items():
        size = "x".join(map(str, shape))
        told.setdefault(size if len(shape) > 1 else name, f"{name}={size}")
    return ", ".join(told.values())


def pass_rows(passes: Sequence[AnyPass], outcome: PipelineResult) -> tuple[PassRow, ...]:
    """One row a pass; exact passes that were judged only as a whole carry the verdict on the whole."""
    rows = []
    for a_pass, result in zip(passes, outcome.results, strict=True):
        together = result.judgement is None and result.modified and result.contract is not Contract.LOSSY
        judgement = outcome.judgement if together else result.judgement
        verdict: Verdict = "not checked" if judgement is None else judgement.verdict.value
        rows.append(
            PassRow(
                name=_spelled(a_pass),
                contract=result.contract.value,
                changes=len(result.changes) if result.modified else 0,
                rejects=tuple(Rejection(reject.reason, reject.node) for reject in result.rejects),
                seconds=result.seconds,
                verdict="different" if result.rolled_back else verdict,
                note=result.rolled_back or result.skipped or ("together" if together and judgement else ""),
            )
        )
    return tuple(rows)


def equality_record(*outcomes: PipelineResult) -> Equality | None:
    """The verdict on the exact passes together, the worst of several runs; None if nothing was judged."""
    order = (Judged.DIFFERENT, Judged.CANNOT_JUDGE, Judged.EQUAL)
    said = [outcome.judgement for outcome in outcomes if outcome.results and outcome.judgement is not None]
    if not said:
        return None
    worst = min(said, key=lambda judgement: order.index(judgement.verdict))
    return Equality(worst.verdict.value, min(judgement.feeds for judgement in said), worst.reason)


def journal_rows(journal: Iterable[Change]) -> tuple[JournalCount, ...]:
    """Edits by pass and kind."""
    counts = Counter((change.owner, change.action) for change in journal)
    return tuple(JournalCount(owner, action, count) for (owner, action), count in counts.items())


def _spelled(a_pass: AnyPass) -> str:
    from onnxq.passes import registry

    known = a_pass.name in registry() or a_pass.name.startswith(GRAPHSURGEON)
    return format_pass(a_pass) if known else a_pass.name

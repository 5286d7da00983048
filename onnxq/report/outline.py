"""The outline of each result: a headline, the sheets in reading order, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from onnxq.report import bench_sheets, figures
from onnxq.report.measures import DataSummary, Fidelity, Timing
from onnxq.report.plan_sheets import decisions_sheet, front_sheet, refinements_sheet, worst_sheet
from onnxq.report.results import (
    ApplyReport,
    BenchResult,
    CalibrationSummary,
    Catalogue,
    CompareResult,
    DemoResult,
    Diagnosis,
    Inspection,
    PassPage,
    Report,
)
from onnxq.report.rows import Status
from onnxq.report.sheets import (
    Row,
    Sheet,
    Tone,
    counts_sheet,
    fidelity_sheet,
    goals_sheet,
    latency_sheet,
    machine_line,
    outliers_sheet,
    passes_sheet,
    rejects_sheet,
)

WORST = 6
"""Layers shown on a terminal; the page and the JSON have all."""
SLOWEST = 5
"""Nodes shown of each model; the page and the JSON have more."""
KERNELS = "Kernels that the runtime runs"

_UNJUDGED = "What lossy passes cost was not measured: `onnxq compare` does that, on data."


@dataclass(frozen=True)
class Outline:
    """A result in reading order.

    Attributes:
        headline: One line that says it all.
        sheets: Tables.
        hints: What to do next.
        details: Long tables, shown only when asked for.
    """

    headline: str
    sheets: tuple[Sheet, ...]
    hints: tuple[str, ...] = ()
    details: tuple[Sheet, ...] = ()


@singledispatch
def outline(result: object) -> Outline:
    """The outline of any class of `onnxq.report.results`."""
    raise TypeError(f"no outline for {type(result).__name__}")


@outline.register
def _optimized(result: Report) -> Outline:
    return Outline(
        headline(result),
        (
            latency_sheet(result.latency, circumstances(result)),
            fidelity_sheet(result.fidelity, result.data),
            decisions_sheet(result.layers, result.target),
            worst_sheet(result.layers, WORST),
            front_sheet(result.front),
            refinements_sheet(result.refinements),
            counts_sheet(KERNELS, "Kernel", result.kernels),
            passes_sheet(result.passes, result.exact, idle=False),
            goals_sheet(result.goals),
        ),
        result.hints,
    )


@outline.register
def _applied(result: ApplyReport) -> Outline:
    changes = sum(row.changes for row in result.passes)
    checked = result.verdict if result.verdict == "not checked" else f"checked: {result.verdict}"
    data = DataSummary("", "", 0, 0)
    lossy = any(row.contract == "lossy" and row.changes for row in result.passes)
    rejects = [(row.name, reject) for row in result.passes for reject in row.rejects]
    return Outline(
        f"{_count(changes, 'change')} to {result.before.name}, {checked}"
        + (f"; {result.clipping}" if result.clipping else ""),
        (
            passes_sheet(result.passes, result.exact, measured=bool(result.fidelity)),
            rejects_sheet(rejects),
            fidelity_sheet(result.fidelity, data),
        ),
        (_UNJUDGED,) if lossy and not result.fidelity else (),
    )


@outline.register
def _compared(result: CompareResult) -> Outline:
    note = f": {result.note}" if result.note else ""
    if result.verdict == "different" and result.fidelity:
        note += f", {_fidelity(result.fidelity)}"
    return Outline(
        f"{result.candidate.name} against {result.reference.name}: {result.verdict}{note}",
        (fidelity_sheet(result.fidelity, result.data),),
    )


@outline.register
def _benched(result: BenchResult) -> Outline:
    return Outline(
        bench_sheets.headline(result),
        (
            latency_sheet(result.timings, bench_sheets.circumstances(result)),
            bench_sheets.memory_sheet(result.memory),
            bench_sheets.placements_sheet(result.placements),
            *bench_sheets.operator_sheets(result.operators),
            bench_sheets.nodes_sheet(result.nodes, SLOWEST),
        ),
        result.hints,
    )


@outline.register
def _inspected(result: Inspection) -> Outline:
    model = result.model
    told = f"{model.name}: {figures.size(model.size_bytes)}, opset {model.opset}, {model.nodes} nodes"
    parts = (Row((part.kind, part.name, part.spelling, part.size)) for part in result.parts)
    return Outline(
        f"{told}, by {model.producer}" if model.producer else told,
        (
            counts_sheet("Recognised", "Part", result.counts),
            counts_sheet(KERNELS, "Kernel", result.kernels),
            rejects_sheet((("", trap) for trap in result.traps), "Slow or wrong in ONNX Runtime"),
            rejects_sheet(("", reject) for reject in result.near_misses),
            outliers_sheet(result.outliers),
        ),
        result.hints,
        (Sheet("Parts", ("Kind", "Name", "Spelling", "Size"), tuple(parts)),),
    )


@outline.register
def _diagnosed(result: Diagnosis) -> Outline:
    tones: dict[Status, Tone] = {"ok": "good", "warn": "warn", "fail": "bad"}
    rows = [Row((row.status, row.name, row.finding, row.way_out), tones[row.status]) for row in result.checks]
    failed, warned = (sum(row.status == status for row in result.checks) for status in ("fail", "warn"))
    told = f"Not ready: {_count(failed, 'thing')} missing" if failed else "Ready"
    told += f"; {_count(warned, 'thing')} to know" if warned else ""
    return Outline(
        told, (Sheet("Checks", ("", "Check", "Found", "Way out"), tuple(rows), machine_line(result.machine)),)
    )


@outline.register
def _calibrated(result: CalibrationSummary) -> Outline:
    return Outline(f"Statistics of {result.values} values on {result.source} are in {result.written}", ())


@outline.register
def _demonstrated(result: DemoResult) -> Outline:
    rows = (
        Row(
            (
                row.model,
                figures.percent(row.accuracy),
                figures.cosine(row.cosine),
                figures.decibels(row.sqnr_db),
                figures.milliseconds(row.median_ms),
                figures.milliseconds(row.least_ms),
                figures.ratio(row.ratio),
                figures.size(row.size_bytes),
            )
        )
        for row in result.rows
    )
    columns = ("Model", ">Accuracy", ">Mean cosine", ">SQNR", ">Median", ">Least", ">Speed", ">Size")
    sheet = Sheet(f"On {result.samples} labelled images", columns, tuple(rows), machine_line(result.machine))
    hints = (f"The full report: {result.report_path}",) if result.report_path else ()
    return Outline(f"One transformer, three ways, in {figures.seconds(result.seconds)}", (sheet,), hints)


@outline.register
def _explained(result: PassPage) -> Outline:
    needs = [*result.statistics, *([f"opset {result.opset}"] if result.opset > 1 else [])]
    facts = (("Promise", result.contract), ("Needs", ", ".join(needs) or "nothing"))
    options = (Row((row.name, row.type, row.default)) for row in result.options)
    return Outline(
        f"{result.name}\n{result.text}",
        (
            Sheet("", ("", ""), tuple(Row(fact) for fact in facts)),
            Sheet("Options", ("Option", "Type", "Default"), tuple(options)),
        ),
    )


@outline.register
def _listed(result: Catalogue) -> Outline:
    rows = (Row((page.name, page.contract, ", ".join(page.statistics), page.law)) for page in result.passes)
    sheet = Sheet("", ("Pass", "Promise", "Needs", "Law"), tuple(rows))
    return Outline(f"{len(result.passes)} passes", (sheet,), ("`onnxq passes NAME` explains one.",))


def headline(report: Report) -> str:
    """The outcome of `optimize` in one line: speed, fidelity, size."""
    told = [_speed(report.latency), _fidelity(report.fidelity)]
    before, after = report.before.size_bytes, report.after.size_bytes
    told.append(f"{figures.size(before)} → {figures.size(after)}")
    return ", ".join(part for part in told if part)


def circumstances(report: Report) -> str:
    """Where and with what `optimize` measured, in a line."""
    return f"{machine_line(report.machine)} · {report.provider} provider"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _speed(timings: Sequence[Timing]) -> str:
    measured = [row for row in timings if row.ratio is not None]
    if not measured:
        return ""
    best = max(measured, key=lambda row: row.ratio or 0.0)
    return f"{figures.ratio(best.ratio)} the speed at {best.shape}"


def _fidelity(rows: Sequence[Fidelity]) -> str:
    if not rows:
        return ""
    worst = min(rows, key=lambda row: row.cosine_mean)
    return f"mean cosine {figures.cosine(worst.cosine_mean)} (lowest {figures.cosine(worst.cosine_min)})"

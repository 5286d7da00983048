"""Records as sheets: titled tables of text that the terminal and the page draw each in its own way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from onnxq.report import figures
from onnxq.report.measures import (
    DataSummary,
    Fidelity,
    Goal,
    JournalCount,
    Machine,
    Rejection,
    Timing,
)
from onnxq.report.rows import Equality, OutlierRow, PassRow

_LONG = 40
"""Characters of a pass with its options, above which the options are left out."""
Tone = Literal["", "good", "warn", "bad"]


@dataclass(frozen=True)
class Row:
    """One line of a sheet, and how it should be looked at."""

    cells: tuple[str, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class Sheet:
    """A titled table.

    Attributes:
        title: What it tells.
        columns: Headings; one that starts with ``>`` is of figures and is set to the right.
        rows: Lines with as many cells as there are columns.
        note: A sentence below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def tells(self, index: int) -> bool:
        """Whether a column says anything in any row; those of things that were not measured are left out."""
        return any(row.cells[index] not in ("", figures.NOTHING) for row in self.rows)


def fidelity_sheet(rows: Iterable[Fidelity], data: DataSummary) -> Sheet:
    """How close each output is, on samples that were not calibrated with."""
    return Sheet(
        f"Fidelity on {data.held_out} samples{' kept apart' if data.calibration else ''}",
        ("Output", ">Mean cosine", ">Lowest", ">SQNR", ">Largest difference", ">Same top-1", ">KL"),
        tuple(
            Row(
                (
                    row.output,
                    figures.cosine(row.cosine_mean),
                    figures.cosine(row.cosine_min),
                    figures.decibels(row.sqnr_db),
                    figures.number(row.max_abs),
                    figures.percent(row.top1),
                    figures.number(row.kl),
                )
            )
            for row in rows
        ),
    )


def latency_sheet(timings: Iterable[Timing], note: str = "") -> Sheet:
    """Times and ratios, a line a model and shape."""
    return Sheet(
        "Latency",
        ("Shape", "Model", ">Threads", ">Median", ">Spread", ">Least", ">Speed", ">Of the rounds", "Verdict"),
        tuple(
            Row(
                (
                    row.shape,
                    row.model,
                    str(row.threads),
                    figures.milliseconds(row.median_ms),
                    figures.milliseconds(row.spread_ms),
                    figures.milliseconds(row.least_ms),
                    figures.ratio(row.ratio),
                    ratio_span(row),
                    row.verdict.replace(" ", "\u00a0"),
                ),
                _tone_of_timing(row),
            )
            for row in timings
        ),
        note,
    )


def ratio_span(row: Timing) -> str:
    """Where the median ratio of the rounds lies, e.g. ``"2.38–2.47x"``; "" where nothing was compared."""
    if row.ratio_low is None or row.ratio_high is None:
        return ""
    return f"{figures.ratio(row.ratio_low).removesuffix('x')}–{figures.ratio(row.ratio_high)}"


def passes_sheet(
    passes: Iterable[PassRow], exact: Equality | None = None, *, measured: bool = True, idle: bool = True
) -> Sheet:
    """What each pass did, and what the check said.

    Args:
        passes: In the order in which they ran.
        exact: The verdict on the exact ones together.
        measured: Whether fidelity was, by which lossy ones are judged.
        idle: Whether those that found nothing to do are listed too, rather than counted.
    """
    every = tuple(passes)
    shown = every if idle else tuple(row for row in every if row.changes or row.rejects or row.note)
    rest = f"{len(every) - len(shown)} more passes found nothing to do" if len(shown) < len(every) else ""
    return Sheet(
        "Passes",
        ("Pass", "Contract", ">Changes", ">Left alone", ">Time", "Checked", "Note"),
        tuple(
            Row(
                (
                    _brief(row.name),
                    row.contract,
                    str(row.changes),
                    str(len(row.rejects)),
                    figures.seconds(row.seconds),
                    _checked(row, measured),
                    row.note,
                ),
                "bad" if row.verdict == "different" else "warn" if row.verdict == "cannot judge" else "",
            )
            for row in shown
        ),
        ". ".join(part for part in (equality_line(exact), rest) if part),
    )


def _brief(spec: str) -> str:
    """A pass with its options, or with a sign that there are many; the JSON has all of them."""
    return spec if len(spec) <= _LONG else f"{spec.partition('{')[0]}{{…}}"


def _checked(row: PassRow, measured: bool) -> str:
    if row.verdict != "not checked":
        return row.verdict.replace(" ", "\u00a0")
    if not row.changes:
        return figures.NOTHING
    return "by\u00a0fidelity" if measured and row.contract == "lossy" else "not\u00a0checked"


def equality_line(exact: Equality | None) -> str:
    """The verdict on the exact passes together, as a sentence; "" if there is none."""
    if exact is None:
        return ""
    told = f"Exact passes together: {exact.verdict} on {exact.feeds} made-up inputs"
    return told if exact.verdict == "equal" else f"{told}: {exact.reason}"


def rejects_sheet(rejects: Iterable[tuple[str, Rejection]], title: str = "Left alone") -> Sheet:
    """What was left alone (or what `title` says): by whom, how often, why, and the first node."""
    found: dict[tuple[str, str], list[str]] = {}
    for owner, reject in rejects:
        found.setdefault((owner, reject.reason), []).append(reject.node)
    return Sheet(
        title,
        ("Pass", ">Times", "Reason", "First at"),
        tuple(Row((owner, str(len(nodes)), reason, nodes[0])) for (owner, reason), nodes in found.items()),
    )


def outliers_sheet(rows: Iterable[OutlierRow]) -> Sheet:
    """How hard each activation is to quantize."""
    return Sheet(
        "Inputs of linears, hardest first",
        ("Linear", ">Largest", ">Kurtosis", ">Channel ratio"),
        tuple(
            Row(
                (
                    row.reader,
                    figures.number(row.max_abs),
                    figures.number(row.kurtosis),
                    figures.ratio(row.channel_ratio),
                )
            )
            for row in rows
        ),
    )


def counts_sheet(title: str, what: str, counts: Mapping[str, int]) -> Sheet:
    """Things and how often they occur."""
    return Sheet(title, (what, ">Count"), tuple(Row((name, str(count))) for name, count in counts.items()))


def journal_sheet(journal: Iterable[JournalCount]) -> Sheet:
    """Edits by pass and kind."""
    rows = tuple(Row((entry.owner, entry.action, str(entry.count))) for entry in journal)
    return Sheet("Journal", ("Pass", "Edit", ">Times"), rows)


def goals_sheet(goals: Iterable[Goal]) -> Sheet:
    """What was asked for, and what came out."""
    rows = (
        Row((goal.asked, goal.got, "met" if goal.met else "missed", goal.way_out), _tone_of_goal(goal))
        for goal in goals
    )
    return Sheet("Goals", ("Asked", "Got", "", "Way out"), tuple(rows))


def machine_line(machine: Machine) -> str:
    """The machine in one line."""
    parts = (
        machine.cpu,
        " ".join(machine.features),
        f"{machine.cores} cores, {figures.size(machine.memory_bytes)}",
        machine.system,
        f"onnxruntime {machine.onnxruntime}" if machine.onnxruntime else "no onnxruntime",
        f"onnxq {machine.onnxq}" if machine.onnxq else "",
        f"Python {machine.python}",
    )
    return " · ".join(part for part in parts if part)


def _tone_of_timing(row: Timing) -> Tone:
    if row.ratio is None:
        return ""
    if row.verdict == "not resolved":
        return "warn"
    return "good" if row.ratio >= 1 else "bad"


def _tone_of_goal(goal: Goal) -> Tone:
    return "good" if goal.met else "bad"

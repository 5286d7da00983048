"""The results of `benchmarks.methods` as Markdown: methods by bits, the papers' order, our ingredients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import table
from benchmarks.recipes import ABLATIONS, BITS, ORDER, ROWS

Result = Mapping[str, Any]

METRICS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "minilm": (
        "1 - mean cosine, and the lowest cosine, of the vectors of 128 test texts (64 texts calibrate)",
        (("error", "{:.5f}"), ("cosine_min", "{:.4f}")),
    ),
    "vit": (
        "SQNR in dB, and IoU, of the maps of 32 test crops (32 crops of other pictures calibrate)",
        (("sqnr_db", "{:.2f}"), ("iou", "{:.4f}")),
    ),
    "smollm2": (
        "perplexity over fp32's, less 1; same likeliest token; 8 chunks of 256 tokens (16 calibrate)",
        (("error", "{:+.2%}"), ("top1_same", "{:.1%}")),
    ),
}
"""What the figures of each model are, and how they are written."""
SLACK = 1.02
"""Errors that differ by less than this factor are even."""


def render(result: Result, findings: str = "") -> str:
    """Write the tables of one model.

    Args:
        result: The content of its JSON file.
        findings: What is to be said of it, as Markdown.
    """
    name, rows = result["methods"], result["rows"]
    bits = [each for each in BITS if any(each in row for row in rows.values())]
    timed = result.get("latency", {})
    parts = [f"## Methods: {name}", f"Each cell: {METRICS[name][0]}.{_columns(timed)}"]
    parts += [_methods(name, rows, bits, timed)]
    parts += ["Expected order, and what became of it (error of the second over that of the first):"]
    parts += [_order(rows, bits)]
    if any(row in rows for row in ABLATIONS):
        parts += ["Ours less one ingredient (error, and its ratio to that of ours):", _ablation(rows, bits)]
    parts += [_latency(shape, each) for shape, each in timed.items()]
    if findings:
        parts += [findings.strip()]
    failed = _failures(rows)
    return "\n\n".join([*parts, *failed]) + "\n"


def verdict(rows: Result, first: str, second: str, bits: str) -> str:
    """Whether the second of two rows errs no more than the first; "" where one was not measured."""
    before, after = (_error(rows, name, bits) for name in (first, second))
    if before is None or after is None or before <= 0:
        return ""
    ratio = after / before
    word = "even" if 1 / SLACK <= ratio <= SLACK else "held" if ratio < 1 else "not held"
    return f"{word} ({ratio:.2f})"


def _columns(timed: Result) -> str:
    """What the columns of latency are."""
    return " Behind them: least time of W8A8 over that of `minmax` in the same run." if timed else ""


def _methods(name: str, rows: Result, bits: Sequence[str], timed: Result) -> str:
    lines = [
        [
            f"`{row}`",
            about,
            *(_cell(name, rows[row].get(each, {})) for each in bits),
            *(_ratio(each["rows"].get(row)) for each in timed.values()),
        ]
        for row, (about, _) in ROWS.items()
        if row in rows
    ]
    return table(["method", "what it is", *bits, *(f"x time at {shape}" for shape in timed)], lines)


def _ratio(time: Result | None) -> str:
    return "" if time is None else f"{time['ratio_least']:.2f}"


def _cell(name: str, row: Result) -> str:
    if "failure" in row:
        return "failed"
    figures = {**row.get("scores", {}), **({"error": row["error"]} if "error" in row else {})}
    found = [form.format(figures[key]) for key, form in METRICS[name][1] if key in figures]
    return " / ".join(found)


def _order(rows: Result, bits: Sequence[str]) -> str:
    lines = [
        [f"`{second}` after `{first}`", *(verdict(rows, first, second, each) for each in bits)]
        for first, second in ORDER
        if first in rows and second in rows
    ]
    return table(["expected", *bits], lines)


def _ablation(rows: Result, bits: Sequence[str]) -> str:
    lines = [["`ours`", *(_number(_error(rows, "ours", each)) for each in bits)]]
    for row, (about, _) in ABLATIONS.items():
        if row in rows:
            lines.append([about, *(_against_ours(rows, row, each) for each in bits)])
    return table(["", *bits], lines)


def _against_ours(rows: Result, row: str, bits: str) -> str:
    own, whole = _error(rows, row, bits), _error(rows, "ours", bits)
    if own is None:
        return ""
    return _number(own) + (f" ({own / whole:.2f})" if whole else "")


def _latency(shape: str, latency: Result) -> str:
    head = (
        f"Latency at W8A8, {shape}, {latency['rounds']} processes a row in turns on {latency['cpu']}, "
        "as a ratio to plain min-max INT8:"
    )
    lines = [
        [
            f"`{row}`",
            f"{each['least_ms']:.2f}",
            f"{each['ratio_least']:.3f}",
            f"{each['ratio_median']:.3f}",
            f"{each['spread']:.0%}",
        ]
        for row, each in latency["rows"].items()
    ]
    return head + "\n\n" + table(["method", "least ms", "x least", "x median", "spread"], lines)


def _failures(rows: Result) -> list[str]:
    found = [
        f"- `{name}` at {bits}: {row['failure']}"
        for name, by_bits in rows.items()
        for bits, row in by_bits.items()
        if "failure" in row
    ]
    return ["Failed:", "\n".join(found)] if found else []


def _error(rows: Result, name: str, bits: str) -> float | None:
    found = rows.get(name, {}).get(bits, {}).get("error")
    return None if found is None else float(found)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"

"""The results as Markdown: every JSON file of a folder becomes one README.md there.

python -m benchmarks.table [FOLDER]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import method_table
from benchmarks.markdown import table
from benchmarks.rivals import RESULTS

Result = Mapping[str, Any]
Column = tuple[str, tuple[str, ...], str]
"""A heading, where in a row its figure is, and how it is written."""

SCORES = {
    "cosine_mean": ("cosine", "{:.5f}"),
    "cosine_min": ("lowest", "{:.5f}"),
    "token_cosine_mean": ("token cosine", "{:.5f}"),
    "token_cosine_min": ("lowest", "{:.5f}"),
    "similarity_error_max": ("similarity error", "{:.4f}"),
    "recall_1": ("recall@1", "{:.1%}"),
    "recall_10": ("recall@10", "{:.1%}"),
    "sqnr_db": ("SQNR dB", "{:.2f}"),
    "iou": ("IoU@0.5", "{:.4f}"),
    "mean_error": ("mean error", "{:.4f}"),
    "perplexity": ("perplexity", "{:.2f}"),
    "perplexity_ratio": ("x fp32", "{:.3f}"),
    "top1_same": ("same top-1", "{:.1%}"),
}
"""Heading and form of each score, in the order of the columns."""

LATENCY = (
    ("least ms", "least_ms", "{:.2f}"),
    ("median ms", "median_ms", "{:.2f}"),
    ("spread", "spread", "{:.0%}"),
    ("x least", "speedup_least", "{:.2f}"),
    ("x median", "speedup_median", "{:.2f}"),
)
COST = (("build s", "seconds", "{:.0f}"), ("peak MB", "peak_mb", "{:.0f}"), ("file MB", "file_mb", "{:.1f}"))
NOTE = """Latency is in milliseconds, least and median over several processes that took turns; x is fp32's
time over the model's; spread is the range of the processes' medians over their median, and smaller
differences mean nothing."""


def render(results: Iterable[Result]) -> str:
    """Write all subjects as one page."""
    parts = ["# Results", NOTE]
    for result in results:
        parts += _subject(result)
    return "\n\n".join(parts) + "\n"


def render_memory(result: Result) -> str:
    """Write the memory of calibration by number of samples."""
    columns: list[Column] = [("samples", ("samples",), "{}"), ("peak MB", ("peak_mb",), "{:.0f}")]
    columns.append(("seconds", ("seconds",), "{:.1f}"))
    lines = [[_cell(row, column) for column in columns] for row in result["rows"]]
    return f"## Memory of calibrating {result['subject']}\n\n{table([each[0] for each in columns], lines)}\n"


def _subject(result: Result) -> list[str]:
    rows = result["rows"]
    parts = [f"## {result['subject']}", _circumstances(result), "### Cost and fidelity"]
    parts.append(_grid(rows, _fidelity_columns(rows)))
    for shape in next(iter(rows.values())).get("latency", {}):
        parts += [
            f"### Latency at {shape}",
            _grid(rows, [(title, ("latency", shape, key), form) for title, key, form in LATENCY]),
        ]
    failures = [f"- `{name}`: {row['failure']}" for name, row in rows.items() if "failure" in row]
    if failures:
        parts += ["Failed:", "\n".join(failures)]
    calls = [[f"`{name}`", f"`{row['call']}`"] for name, row in rows.items()]
    return [*parts, "### Calls", table(["contestant", "call"], calls)]


def _circumstances(result: Result) -> str:
    there = result["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in there["versions"].items())
    processor = f"{there['cpu']} ({', '.join(there['features'])}), {there['threads']} threads"
    return f"{processor}; {versions}; data {result['data'][:12]}."


def _grid(rows: Mapping[str, Result], columns: Sequence[Column]) -> str:
    """Lay out one line for each contestant that has something in one of the columns."""
    lines = [[f"`{name}`", *(_cell(row, column) for column in columns)] for name, row in rows.items()]
    return table(
        ["contestant", *(title for title, _, _ in columns)], [line for line in lines if any(line[1:])]
    )


def _fidelity_columns(rows: Mapping[str, Result]) -> list[Column]:
    """Cost, and those scores that any contestant has."""
    columns: list[Column] = [(title, (key,), form) for title, key, form in COST]
    tasks = {
        score: task
        for row in rows.values()
        for task in row.get("scores", {})
        for score in row["scores"][task]
    }
    for score, (title, form) in SCORES.items():
        if score in tasks:
            columns.append((title, ("scores", tasks[score], score), form))
    return columns


def _cell(row: Result, column: Column) -> str:
    """Follow a column's path into a row; nothing where the path ends early."""
    _, path, form = column
    found: Any = row
    for key in path:
        found = found.get(key)
        if found is None:
            return ""
    return form.format(found)


def page(folder: Path) -> str:
    """Everything that a folder of results holds; `methods-MODEL.md` there is what its tables mean."""
    found = {path: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    methods = {path: each for path, each in found.items() if "methods" in each}
    others = [each for path, each in found.items() if path not in methods]
    parts = [render(each for each in others if isinstance(each["rows"], dict))]
    parts += [render_memory(each) for each in others if isinstance(each["rows"], list)]
    for path, each in methods.items():
        words = path.with_suffix(".md")
        parts.append(method_table.render(each, words.read_text() if words.exists() else ""))
    return "\n".join(parts).rstrip() + "\n"


def main() -> None:
    """Write the page of one folder of results."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    (folder / "README.md").write_text(page(folder))
    print(folder / "README.md")


if __name__ == "__main__":
    main()

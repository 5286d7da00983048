"""The results as Markdown: every JSON file of a folder becomes one README.md there.

python -m benchmarks.table [FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import account, method_table
from benchmarks.columns import (
    COST,
    Column,
    Rows,
    latency_columns,
    originals,
    score_columns,
    shapes_of,
    without,
)
from benchmarks.lost_cells import lost_cells
from benchmarks.margins import margins
from benchmarks.markdown import table
from benchmarks.rivals import RESULTS

Result = Mapping[str, Any]

NOTE = """Latency is in milliseconds, least and median over several processes that took turns; x is fp32's
time over the model's; spread is the range of the processes' medians over their median, and smaller
differences mean nothing. The best figure of each column is bold; rows that run the source model take no part
in that. Rows named `openvino` run in OpenVINO, all others in ONNX Runtime."""


def render(results: Iterable[Result]) -> str:
    """Write all subjects as one page."""
    parts = ["# Results", NOTE]
    for result in results:
        parts += _subject(result)
    return "\n\n".join(parts) + "\n"


def render_memory(result: Result) -> str:
    """Write the memory of calibration by number of samples."""
    columns = [Column("samples", ("samples",), "{}"), Column("peak MB", ("peak_mb",), "{:.0f}")]
    columns.append(Column("seconds", ("seconds",), "{:.1f}"))
    lines = [[column.cell(row) for column in columns] for row in result["rows"]]
    return (
        f"## Memory of calibrating {result['subject']}\n\n{table([each.title for each in columns], lines)}\n"
    )


def render_layers(result: Result) -> str:
    """Write the stack of layers with random weights, fp32 beside INT8."""
    headings = ["shape", *(f"{name} {what}" for name in ("fp32", "onnxq") for what in ("least", "median"))]
    lines = [
        [
            row["shape"],
            *(f"{row[name][f'{what}_ms']:.1f}" for name in ("fp32", "onnxq") for what in ("least", "median")),
            *(f"{row['onnxq'][f'speedup_{what}']:.2f}" for what in ("least", "median")),
        ]
        for row in result["rows"]
    ]
    sizes = ", ".join(f"{what} {size}" for what, size in result["stack"].items())
    grid = table([*headings, "x least", "x median"], lines)
    return f"## Layers with random weights\n\n{sizes}. {_machine(result['environment'])}.\n\n{grid}\n"


def render_accounts(result: Result) -> str:
    """Write where the time of some models goes, operator by operator."""
    parts = [account.render(name, each) for name, found in result["accounts"].items() for each in found]
    title = f"## Where the time of {', '.join(result['accounts'])} goes"
    return "\n\n".join([title, f"{_machine(result['environment'])}.", *parts]) + "\n"


def render_spellings(result: Result) -> str:
    """Write the spellings of single computations, each beside the one that onnxq emits."""
    lines = [
        [
            each["asked"] if not place else "",
            each["shape"] if not place else "",
            answer,
            f"{1000 * found['least_ms']:.0f}",
            f"{found['ratio_least']:.2f}",
            f"{found['ratio_median']:.2f}",
        ]
        for each in result["spellings"].values()
        for place, (answer, found) in enumerate(each["answers"].items())
    ]
    grid = table(["computation", "at", "spelling", "least, us", "ratio", "of medians"], lines)
    what = "The first spelling of each is what onnxq emits; ratios are to it, so that more than 1 is slower."
    return f"## Spellings of one computation\n\n{what} {_machine(result['environment'])}.\n\n{grid}\n"


def _subject(result: Result) -> list[str]:
    rows = result["rows"]
    parts = [f"## {result['subject']}", _circumstances(result), *filter(None, [result.get("remark")])]
    parts += ["### Cost and fidelity", _grid(rows, [*COST, *score_columns(rows)])]
    for shape in shapes_of(rows):
        parts += [f"### Latency at {shape}", _grid(rows, latency_columns(shape))]
    if ahead := margins(rows):
        parts += ["### Margins", ahead]
    if lost := lost_cells(rows):
        parts += ["### Lost cells", lost]
    failures = [f"- `{name}`: {row['failure']}" for name, row in rows.items() if "failure" in row]
    if failures:
        parts += ["Failed:", "\n".join(failures)]
    calls = [[f"`{name}`", f"`{row['call']}`"] for name, row in rows.items()]
    return [*parts, "### Calls", table(["contestant", "call"], calls)]


def _circumstances(result: Result) -> str:
    there = result["environment"]
    return f"{_machine(there)}{_others(there)}; data {result['data'][:12]}."


def _machine(there: Mapping[str, Any]) -> str:
    """The processor, and the versions of what ran on it."""
    versions = ", ".join(f"{name} {number}" for name, number in there["versions"].items())
    return f"{there['cpu']} ({', '.join(there['features'])}), {there['threads']} threads; {versions}"


def _others(there: Mapping[str, Any]) -> str:
    """The pinned packages of the environments of others, and which code of ours it was."""
    pins = "; ".join(
        f"{name}: {', '.join(packages).replace('==', ' ')}"
        for name, packages in there.get("environments", {}).items()
    )
    return f", code {there['code']}; {pins}" if pins else ""


def _grid(rows: Rows, columns: Sequence[Column]) -> str:
    """Lay out one line for each contestant that has something in one of the columns."""
    contest = without(rows, originals(rows))
    best = {column: column.best(rows, contest) for column in columns}
    lines = []
    for name, row in rows.items():
        cells = [column.cell(row) for column in columns]
        if any(cells):
            marked = [
                f"**{cell}**" if name in best[column] else cell
                for column, cell in zip(columns, cells, strict=True)
            ]
            lines.append([f"`{name}`", *marked])
    return table(["contestant", *(column.title for column in columns)], lines)


def page(folder: Path) -> str:
    """The tables of a folder of results; `methods-MODEL.md` there is what its tables mean."""
    found = {path: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    methods = {path: each for path, each in found.items() if "methods" in each}
    others = [each for path, each in found.items() if path not in methods and "subject" in each]
    parts = [render(each for each in others if isinstance(each["rows"], dict))]
    parts += [render_memory(each) for each in others if isinstance(each["rows"], list)]
    parts += [render_layers(each) for each in found.values() if "stack" in each]
    parts += [render_spellings(each) for each in found.values() if "spellings" in each]
    parts += [render_accounts(each) for each in found.values() if "accounts" in each]
    for path, each in methods.items():
        words = path.with_suffix(".md")
        parts.append(method_table.render(each, words.read_text() if words.exists() else ""))
    return "\n".join(parts).rstrip() + "\n"


def main() -> None:
    """Write the page of one folder of results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS, help="of results")
    folder = parser.parse_args().folder
    (folder / "README.md").write_text(page(folder))
    print(folder / "README.md")


if __name__ == "__main__":
    main()

"""The sheets of `bench`: latency, memory, operators side by side, the slowest nodes, providers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxq.report import figures
from onnxq.report.bench_rows import MemoryRow, NodeRow, OperatorRow, PlacementRow
from onnxq.report.measures import Timing
from onnxq.report.results import BenchResult
from onnxq.report.sheets import Row, Sheet, machine_line, ratio_span

_MOST_OPERATORS = 12
_SMALL = 0.005
"""Share of the time in all nodes below which an operator goes into the line of the rest."""


def headline(result: BenchResult) -> str:
    """What came out, a line a shape: the fastest model against the first."""
    shapes = list(dict.fromkeys(row.shape for row in result.timings))
    told = []
    for shape in shapes:
        first, *rivals = (row for row in result.timings if row.shape == shape)
        where = f" at {shape}" if len(shapes) > 1 or not rivals else ""
        if not rivals:
            told.append(f"{figures.milliseconds(first.median_ms)}{where}")
            continue
        best = max(rivals, key=lambda row: row.ratio or 0.0)
        told.append(_against(best, first) + where)
    return "\n".join(told)


def _against(row: Timing, first: Timing) -> str:
    if row.verdict == "not resolved":
        return f"no difference between {row.model} and {first.model} is resolved"
    span = f" (rounds: {ratio_span(row)})" if row.ratio_low is not None else ""
    return f"{row.model} runs at {figures.ratio(row.ratio)} the speed of {first.model}{span}"


def circumstances(result: BenchResult) -> str:
    """Where and how it was measured, in a line."""
    rounds = f"{result.rounds} round{'' if result.rounds == 1 else 's'}, one model a process"
    parts = [
        f"on {result.host}" if result.host else "",
        machine_line(result.machine),
        result.provider,
        "" if result.copies else "inputs and outputs on the device, copies not counted",
        f"without {', '.join(result.disabled_optimizers)}" if result.disabled_optimizers else "",
        rounds,
    ]
    return " · ".join(part for part in parts if part)


def memory_sheet(rows: Iterable[MemoryRow]) -> Sheet:
    """Disk, opening and memory, a line a model and shape."""
    return Sheet(
        "Memory",
        ("Shape", "Model", ">On disk", ">Opened in", ">Added by opening", ">Peak of the process"),
        tuple(
            Row(
                (
                    row.shape,
                    row.model,
                    figures.size(row.size_bytes),
                    figures.milliseconds(row.load_ms),
                    figures.NOTHING if row.loaded_bytes is None else figures.size(row.loaded_bytes),
                    figures.NOTHING if row.peak_bytes is None else figures.size(row.peak_bytes),
                )
            )
            for row in rows
        ),
    )


def operator_sheets(rows: Sequence[OperatorRow]) -> tuple[Sheet, ...]:
    """For each shape the operators, with the models side by side: nodes, time, share of the model's time."""
    shapes = dict.fromkeys(row.shape for row in rows)
    return tuple(_operator_sheet(shape, [row for row in rows if row.shape == shape]) for shape in shapes)


def _operator_sheet(shape: str, rows: Sequence[OperatorRow]) -> Sheet:
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.model, row.op): row for row in rows}
    weight: dict[str, float] = {}
    for row in rows:
        weight[row.op] = max(weight.get(row.op, 0.0), row.share)
    ranked = sorted(weight, key=lambda op: -weight[op])
    shown = [op for op in ranked if weight[op] >= _SMALL][:_MOST_OPERATORS]
    rest = [op for op in ranked if op not in shown]
    lines = [Row((op, *(_of(cells.get((model, op))) for model in models))) for op in shown]
    if rest:
        held = [[cells[model, op] for op in rest if (model, op) in cells] for model in models]
        lines.append(Row((f"{len(rest)} others", *map(_together, held))))
    held = [[row for row in rows if row.model == model] for model in models]
    lines.append(Row(("all", *(_together(each) for each in held))))
    columns = ("Operator", *(f">{figures.shorten(model, 32)}" for model in models))
    note = "Time in a run, of each node its best; its share; how many nodes."
    return Sheet(f"Operators at {shape}", columns, tuple(lines), note)


def _of(row: OperatorRow | None) -> str:
    return figures.NOTHING if row is None else _cell(row.us, row.share, row.nodes)


def _together(rows: Sequence[OperatorRow]) -> str:
    if not rows:
        return figures.NOTHING
    return _cell(sum(row.us for row in rows), sum(row.share for row in rows), sum(row.nodes for row in rows))


def _cell(us: float, share: float, count: int) -> str:
    told = f"{figures.milliseconds(us / 1000)}  {100 * share:4.1f} %  {count:4d}"
    return told.replace(" ", "\u00a0")  # the columns inside a cell line up, on a page too


def nodes_sheet(rows: Iterable[NodeRow], count: int) -> Sheet:
    """The slowest nodes of each model, `count` of each model and shape."""
    lines, seen = [], dict[tuple[str, str], int]()
    for row in rows:
        key = (row.shape, row.model)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= count:
            time, share = figures.milliseconds(row.us / 1000), figures.percent(row.share)
            lines.append(Row((row.shape, row.model, row.node, row.op, time, share)))
    columns = ("Shape", "Model", "Node", "Operator", ">Time", ">Share")
    return Sheet("Slowest nodes", columns, tuple(lines))


def placements_sheet(rows: Iterable[PlacementRow]) -> Sheet:
    """Which provider ran how many nodes of what."""
    return Sheet(
        "Where nodes ran",
        ("Shape", "Model", "Provider", ">Nodes", "Operators"),
        tuple(
            Row((row.shape, row.model, row.provider, str(row.nodes), _listed(row.ops.items())))
            for row in rows
        ),
    )


def _listed(ops: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{op} {count}" for op, count in ops)

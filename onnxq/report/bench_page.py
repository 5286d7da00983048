"""The result of `bench` as one HTML file: no scripts, nothing fetched, fit for a screen and for paper."""

from __future__ import annotations

from collections.abc import Iterable

from onnxq.report import bench_sheets, drawing, figures
from onnxq.report.markup import bullets, document, folded, section, table, tiles_of
from onnxq.report.results import BenchResult
from onnxq.report.sheets import latency_sheet, ratio_span

_TILES = 8


def html_page(result: BenchResult) -> str:
    """The whole page as text, to be written as UTF-8."""
    models = dict.fromkeys(row.model for row in result.timings)
    lead = " · ".join(bench_sheets.headline(result).splitlines())
    return document(", ".join(models), lead, _tiles(result), _sections(result))


def _tiles(result: BenchResult) -> str:
    rivals = [row for row in result.timings if row.ratio is not None]
    tiles = [
        (
            f"Speed at {row.shape}",
            figures.ratio(row.ratio),
            f"{row.model} {ratio_span(row)}",
        )
        for row in rivals[:_TILES]
    ]
    if not rivals:
        tiles = [(row.shape, figures.milliseconds(row.least_ms), "least") for row in result.timings[:_TILES]]
    return tiles_of(tiles)


def _sections(result: BenchResult) -> Iterable[str]:
    """Times first, then what to hold against them, then where they go."""
    yield section(
        "Latency",
        drawing.latency_bars(result.timings) + table(latency_sheet(result.timings)),
        note="A bar is the least time, a dot the median run of one process. "
        + bench_sheets.circumstances(result),
    )
    yield section("What to know", bullets(result.hints))
    yield section("Memory", table(bench_sheets.memory_sheet(result.memory)))
    yield section("Where nodes ran", table(bench_sheets.placements_sheet(result.placements)))
    yield section("Operators", _operators(result))
    nodes = table(bench_sheets.nodes_sheet(result.nodes, len(result.nodes)))
    yield section("Slowest nodes", folded("Of each model and shape", nodes))


def _operators(result: BenchResult) -> str:
    if not result.operators:
        return ""
    sheets = bench_sheets.operator_sheets(result.operators)
    return drawing.operator_bars(result.operators) + "".join(
        folded(sheet.title, table(sheet)) for sheet in sheets
    )

"""The report of `optimize` as one HTML file: no scripts, nothing fetched, fit for a screen and for paper."""

from __future__ import annotations

from collections.abc import Iterable

from onnxq.report import drawing, figures
from onnxq.report.markup import bullets, document, escape, folded, section, table, tiles_of
from onnxq.report.measures import ModelSummary
from onnxq.report.outline import circumstances, headline
from onnxq.report.plan_sheets import decisions_sheet, layers_sheet, refinements_sheet
from onnxq.report.results import Report
from onnxq.report.rows import ChannelPicture, LayerRow
from onnxq.report.sheets import (
    Row,
    Sheet,
    counts_sheet,
    equality_line,
    fidelity_sheet,
    goals_sheet,
    journal_sheet,
    latency_sheet,
    passes_sheet,
    rejects_sheet,
)

_FRONT = (
    "Each dot is a plan; a step to the right spends more on the layer where that takes away the most error."
)


def html_page(report: Report) -> str:
    """The whole page as text, to be written as UTF-8."""
    return document(report.before.name, headline(report), _tiles(report), _sections(report))


def _sections(report: Report) -> Iterable[str]:
    """Outcome first, then what it was made of, then how to repeat it."""
    rejects = [(row.name, reject) for row in report.passes for reject in row.rejects]
    yield section("What was asked", table(goals_sheet(report.goals)))
    yield section("What to do next", bullets(report.hints))
    yield section("Latency", _latency(report), note=circumstances(report))
    yield section("Fidelity", table(fidelity_sheet(report.fidelity, report.data)), note=_data_line(report))
    yield section("Layers", _layers(report.layers))
    yield section("Plans", drawing.front_curve(report.front), note=_FRONT)
    yield section("Refinements", table(refinements_sheet(report.refinements)))
    yield section("Channels before and after", _channels(report.channels, report.layers))
    yield section("Kernels", table(counts_sheet("", "In the graph that the runtime runs", report.kernels)))
    yield section("Passes", table(passes_sheet(report.passes)), note=equality_line(report.exact))
    yield section("Left alone", table(rejects_sheet(rejects)))
    yield section("Journal", folded("Edits by pass", table(journal_sheet(report.journal))))
    yield section("Models", _models(report))
    yield section("Recipe", _recipe(report))


def _tiles(report: Report) -> str:
    tiles: list[tuple[str, str, str]] = []
    ratios = [row.ratio for row in report.latency if row.ratio is not None]
    if ratios:
        spread = figures.ratio(max(ratios)) if len(ratios) == 1 else _span(min(ratios), max(ratios))
        tiles.append(("Speed", spread, "of the original"))
    if report.fidelity:
        worst = min(report.fidelity, key=lambda row: row.cosine_mean)
        tiles.append(
            ("Mean cosine", figures.cosine(worst.cosine_mean), f"lowest {figures.cosine(worst.cosine_min)}")
        )
    before, after = report.before.size_bytes, report.after.size_bytes
    tiles.append(("Size", figures.size(after), f"was {figures.size(before)}"))
    if report.layers:
        low = sum(not row.decision.startswith("float") for row in report.layers)
        rest = "the rest stays float" if low < len(report.layers) else "none stays float"
        tiles.append(("Layers quantized", f"{low} of {len(report.layers)}", rest))
    if report.target:
        tiles.append(("Target", report.target, f"timed with {report.provider}"))
    return tiles_of(tiles)


def _span(low: float, high: float) -> str:
    return f"{figures.ratio(low).removesuffix('x')}–{figures.ratio(high)}"


def _latency(report: Report) -> str:
    if not report.latency:
        return ""
    return drawing.latency_bars(report.latency) + table(latency_sheet(report.latency))


def _data_line(report: Report) -> str:
    data = report.data
    return f"{data.source}: {data.calibration} samples to calibrate with, {data.held_out} others to judge by"


def _layers(layers: tuple[LayerRow, ...]) -> str:
    if not layers:
        return ""
    decisions = dict.fromkeys(row.decision for row in layers if row.sqnr_db is not None)
    picture = drawing.legend(decisions) + drawing.layer_errors(layers) if decisions else ""
    every = folded(f"All {len(layers)} layers", table(layers_sheet(layers)))
    return picture + table(decisions_sheet(layers)) + every


def _channels(pictures: tuple[ChannelPicture, ...], layers: tuple[LayerRow, ...]) -> str:
    known = {row.name: row for row in layers}
    return "".join(_channel(picture, known.get(picture.layer)) for picture in pictures)


def _channel(picture: ChannelPicture, row: LayerRow | None) -> str:
    told = f"{len(picture.before)} channels"
    if row is not None and row.channel_ratio_before and row.channel_ratio_after:
        before, after = figures.number(row.channel_ratio_before), figures.number(row.channel_ratio_after)
        told += f", largest over median {before} → {after}"
    caption = f"<figcaption><code>{escape(picture.layer)}</code> {told}</figcaption>"
    return f"<figure>{caption}{drawing.channel_ranges(picture)}</figure>"


def _models(report: Report) -> str:
    columns = ("", "Name", ">Size", ">Opset", ">IR", ">Nodes", "Made by", "SHA-256 of graph and weights")
    rows = (("before", report.before), ("after", report.after))
    return table(Sheet("", columns, tuple(Row((told, *_model_cells(model))) for told, model in rows)))


def _model_cells(model: ModelSummary) -> tuple[str, ...]:
    counts = (str(model.opset), str(model.ir_version), str(model.nodes))
    return (model.name, figures.size(model.size_bytes), *counts, model.producer, model.sha256)


def _recipe(report: Report) -> str:
    # line breaks are the one invisible thing a recipe needs
    lines = (escape(line) for line in report.recipe.split("\n"))
    return "<pre>" + "\n".join(lines) + "</pre>" if report.recipe else ""

"""The report of `optimize` as one HTML file: no scripts, nothing fetched, fit for a screen and for paper."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib.resources import files

from onnxq.report import drawing, figures
from onnxq.report.measures import ModelSummary
from onnxq.report.outline import headline
from onnxq.report.results import Report
from onnxq.report.rows import ChannelPicture, LayerRow
from onnxq.report.sheets import (
    Row,
    Sheet,
    counts_sheet,
    decisions_sheet,
    equality_line,
    fidelity_sheet,
    goals_sheet,
    journal_sheet,
    latency_sheet,
    layers_sheet,
    machine_line,
    passes_sheet,
    rejects_sheet,
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Tells the browser what the page promises: nothing runs and nothing is fetched."""
_LONG = 24


def html_page(report: Report) -> str:
    """The whole page as text, to be written as UTF-8."""
    style = files("onnxq.report").joinpath("page.css").read_text(encoding="utf-8")
    name = _escape(report.before.name)
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>onnxq: {name}</title>",
            f"<style>\n{style}</style></head><body><main>",
            f'<header><p class="mark">onnxq</p><h1>{name}</h1>',
            f'<p class="lead">{_escape(headline(report))}</p>{_tiles(report)}</header>',
            *_sections(report),
            "</main></body></html>\n",
        )
    )


def _sections(report: Report) -> Iterable[str]:
    """Outcome first, then what it was made of, then how to repeat it."""
    rejects = [(row.name, reject) for row in report.passes for reject in row.rejects]
    yield _section("What was asked", _table(goals_sheet(report.goals)))
    yield _section("What to do next", _list(report.hints))
    yield _section("Latency", _latency(report), note=machine_line(report.machine))
    yield _section("Fidelity", _table(fidelity_sheet(report.fidelity, report.data)), note=_data_line(report))
    yield _section("Layers", _layers(report.layers))
    yield _section("Channels before and after", _channels(report.channels, report.layers))
    yield _section("Kernels", _table(counts_sheet("", "In the graph that the runtime runs", report.kernels)))
    yield _section("Passes", _table(passes_sheet(report.passes)), note=equality_line(report.exact))
    yield _section("Left alone", _table(rejects_sheet(rejects)))
    yield _section("Journal", _folded("Edits by pass", _table(journal_sheet(report.journal))))
    yield _section("Models", _models(report))
    yield _section("Recipe", _recipe(report))


def _tiles(report: Report) -> str:
    tiles = []
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
    cells = (
        f"<div><dt>{name}</dt><dd>{_escape(value)}<small>{_escape(told)}</small></dd></div>"
        for name, value, told in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _span(low: float, high: float) -> str:
    return f"{figures.ratio(low).removesuffix('x')}–{figures.ratio(high)}"


def _latency(report: Report) -> str:
    if not report.latency:
        return ""
    return drawing.latency_bars(report.latency) + _table(latency_sheet(report.latency))


def _data_line(report: Report) -> str:
    data = report.data
    return f"{data.source}: {data.calibration} samples to calibrate with, {data.held_out} others to judge by"


def _layers(layers: tuple[LayerRow, ...]) -> str:
    if not layers:
        return ""
    decisions = dict.fromkeys(row.decision for row in layers if row.sqnr_db is not None)
    picture = drawing.legend(decisions) + drawing.layer_errors(layers) if decisions else ""
    table = _folded(f"All {len(layers)} layers", _table(layers_sheet(layers)))
    return picture + _table(decisions_sheet(layers)) + table


def _channels(pictures: tuple[ChannelPicture, ...], layers: tuple[LayerRow, ...]) -> str:
    known = {row.name: row for row in layers}
    return "".join(_channel(picture, known.get(picture.layer)) for picture in pictures)


def _channel(picture: ChannelPicture, row: LayerRow | None) -> str:
    told = f"{len(picture.before)} channels"
    if row is not None and row.channel_ratio_before and row.channel_ratio_after:
        before, after = figures.number(row.channel_ratio_before), figures.number(row.channel_ratio_after)
        told += f", largest over median {before} → {after}"
    caption = f"<figcaption><code>{_escape(picture.layer)}</code> {told}</figcaption>"
    return f"<figure>{caption}{drawing.channel_ranges(picture)}</figure>"


def _models(report: Report) -> str:
    columns = ("", "Name", ">Size", ">Opset", ">IR", ">Nodes", "Made by", "SHA-256 of graph and weights")
    rows = (("before", report.before), ("after", report.after))
    return _table(Sheet("", columns, tuple(Row((told, *_model_cells(model))) for told, model in rows)))


def _model_cells(model: ModelSummary) -> tuple[str, ...]:
    counts = (str(model.opset), str(model.ir_version), str(model.nodes))
    return (model.name, figures.size(model.size_bytes), *counts, model.producer, model.sha256)


def _recipe(report: Report) -> str:
    # line breaks are the one invisible thing a recipe needs
    lines = (_escape(line) for line in report.recipe.split("\n"))
    return "<pre>" + "\n".join(lines) + "</pre>" if report.recipe else ""


def _section(title: str, body: str, *, note: str = "") -> str:
    if not body:
        return ""
    told = f'<p class="note">{_escape(note)}</p>' if note else ""
    return f"<section><h2>{title}</h2>{body}{told}</section>"


def _folded(title: str, body: str) -> str:
    return f"<details open><summary>{title}</summary>{body}</details>" if body else ""


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{_escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _table(sheet: Sheet) -> str:
    """A sheet as a table; columns that tell nothing are left out."""
    kept = [index for index, _ in enumerate(sheet.columns) if sheet.tells(index)]
    if not kept:
        return ""
    sides = {index: "figure" if sheet.columns[index].startswith(">") else "" for index in kept}
    head = "".join(f'<th class="{sides[i]}">{sheet.columns[i].removeprefix(">")}</th>' for i in kept)
    body = "".join(
        f'<tr class="{row.tone}">' + "".join(_cell(row.cells[i], sides[i]) for i in kept) + "</tr>"
        for row in sheet.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, side: str) -> str:
    """A cell; long names without a space may break behind their separators, at a decent width."""
    told = _escape(text)
    if "→" in text:
        side = f"{side} pair"
    if " " not in text and len(text) > _LONG:
        side, told = f"{side} name", told.replace("/", "/<wbr>").replace(".", ".<wbr>")
    return f'<td class="{side}">{told}</td>'


def _escape(text: str) -> str:
    return html.escape(figures.printable(text))

"""What the pages are made of: the document, its sections, tables, tiles. No scripts, nothing fetched."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib.resources import files

from onnxq.report import figures
from onnxq.report.sheets import Sheet

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Tells the browser what the page promises: nothing runs and nothing is fetched."""
_LONG = 24


def document(title: str, lead: str, tiles: str, sections: Iterable[str]) -> str:
    """A whole page as text, to be written as UTF-8."""
    style = files("onnxq.report").joinpath("page.css").read_text(encoding="utf-8")
    name = escape(title)
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>onnxq: {name}</title>",
            f"<style>\n{style}</style></head><body><main>",
            f'<header><p class="mark">onnxq</p><h1>{name}</h1>',
            f'<p class="lead">{escape(lead)}</p>{tiles}</header>',
            *sections,
            "</main></body></html>\n",
        )
    )


def tiles_of(tiles: Iterable[tuple[str, str, str]]) -> str:
    """A row of figures: what, how much, and what to hold it against."""
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(told)}</small></dd></div>"
        for name, value, told in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def section(title: str, body: str, *, note: str = "") -> str:
    """A titled part of the page; nothing if it is empty."""
    if not body:
        return ""
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{body}{told}</section>"


def folded(title: str, body: str) -> str:
    """A part that the reader can fold away."""
    return f"<details open><summary>{escape(title)}</summary>{body}</details>" if body else ""


def bullets(sentences: Iterable[str]) -> str:
    """Sentences as a list."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def table(sheet: Sheet) -> str:
    """A sheet as a table; columns that tell nothing are left out."""
    kept = [index for index, _ in enumerate(sheet.columns) if sheet.tells(index)]
    if not kept:
        return ""
    sides = {index: "figure" if sheet.columns[index].startswith(">") else "" for index in kept}
    head = "".join(f'<th class="{sides[i]}">{escape(sheet.columns[i].removeprefix(">"))}</th>' for i in kept)
    body = "".join(
        f'<tr class="{row.tone}">' + "".join(_cell(row.cells[i], sides[i]) for i in kept) + "</tr>"
        for row in sheet.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, side: str) -> str:
    """A cell; long names without a space may break behind their separators, at a decent width."""
    told = escape(text)
    if "→" in text:
        side = f"{side} pair"
    if " " not in text and len(text) > _LONG:
        side, told = f"{side} name", told.replace("/", "/<wbr>").replace(".", ".<wbr>")
    return f'<td class="{side}">{told}</td>'


def escape(text: str) -> str:
    """Text for a page, everything invisible written out."""
    return html.escape(figures.printable(text))

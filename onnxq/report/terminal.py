"""Results on a terminal: rich tables there, the same tables without colour in a file or a pipe."""

from __future__ import annotations

import os
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxq.report import figures
from onnxq.report.outline import outline
from onnxq.report.sheets import Sheet, Tone

_STYLES: dict[Tone, str] = {"": "", "good": "green", "warn": "yellow", "bad": "red"}
_PIPE_WIDTH = 160
_NAME_WIDTH = 48


def console(file: IO[str]) -> Console:
    """A console on `file`: coloured on a terminal (unless NO_COLOR is set), plain and wide anywhere else."""
    made = Console(file=file, highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made = Console(file=file, highlight=False, markup=False, emoji=False, width=_PIPE_WIDTH)
    return made


def show(result: object, to: Console, *, everything: bool = False) -> None:
    """Print any class of `onnxq.report.results`; long tables only where `everything` is asked for."""
    told = outline(result)
    for number, line in enumerate(told.headline.splitlines()):
        to.print(Text(figures.printable(line), style="" if number else "bold"))
    for sheet in (*told.sheets, *(told.details if everything else ())):
        if sheet.rows:
            to.print()
            _print_sheet(sheet, to)
    if told.hints:
        to.print()
    for hint in told.hints:
        to.print(Text(f"• {figures.printable(hint)}"))


def _print_sheet(sheet: Sheet, to: Console) -> None:
    kept = [index for index, _ in enumerate(sheet.columns) if sheet.tells(index)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.show_header = any(sheet.columns)
    for index in kept:
        heading = sheet.columns[index]
        of_figures = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if of_figures else "left",
            no_wrap=of_figures,
            overflow="fold",
        )
    for row in sheet.rows:
        table.add_row(*(_cell(row.cells[index]) for index in kept), style=_STYLES[row.tone])
    if sheet.title:
        to.print(Text(sheet.title, style="bold"))
    to.print(table)
    if sheet.note:
        to.print(Text(figures.printable(sheet.note), style="dim"))


def _cell(text: str) -> Text:
    """Sentences wrap; the name of a node has nowhere to wrap at and is cut in its middle."""
    seen = figures.printable(text)
    return Text(seen if " " in seen else figures.shorten(seen, _NAME_WIDTH))

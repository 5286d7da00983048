"""Progress on stderr: a bar on a terminal, a line a stage in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Progress = Callable[[str, int, int], None]
"""Told of progress: the stage in words, steps done, steps in all (0 if nobody knows).

What comes behind ": " in a stage is a part of it, which a bar shows and a log leaves out.
"""


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A display that is gone when the work is done."""
    if sys.stderr.isatty():
        with _bar() as shown:
            yield shown
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("starting", total=None)

        def shown(stage: str, done: int, total: int) -> None:
            display.update(task, description=stage, completed=done, total=total or None)

        yield shown


def _lines() -> Progress:
    seen: list[str] = []

    def shown(stage: str, done: int, total: int) -> None:
        name, _, part = stage.partition(": ")
        if seen[-1:] != [name]:
            seen[:] = [name]
            click.echo(f"{name} ({total})" if total and not part else name, err=True)

    return shown

"""`onnxq bench`: honest latency of models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq.cli.options import shape_option, threads_option
from onnxq.cli.progress import progress_display
from onnxq.cli.verb import Verb, give


@click.command(cls=Verb, short_help="Time models on this machine.")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option("--rounds", type=int, help="Processes started for each model.  [default: 5]")
@click.option("--seconds", type=float, help="Time spent in each process.  [default: 1.0]")
@click.option("--provider", help="Execution provider.  [default: cpu]")
@threads_option
@shape_option
def bench(models: tuple[Path, ...], shapes: tuple[tuple[str, tuple[int, ...]], ...], **given: Any) -> None:
    """Time models against the first of them, one model a process, in alternated rounds."""
    from onnxq.recipe import BenchSettings

    told = {name: value for name, value in given.items() if value is not None}
    settings = BenchSettings(shapes=dict(shapes), **told)
    from onnxq import api

    with progress_display() as progress:
        result = api.bench(models, settings, progress=progress)
    give(result)

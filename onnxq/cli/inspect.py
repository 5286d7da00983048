"""`onnxq inspect`: what onnxq sees in a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq.cli.options import DATA, data_options, take_data
from onnxq.cli.progress import progress_display
from onnxq.cli.verb import Verb, give


@click.command(cls=Verb, short_help="Show what a model is made of.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--calib", metavar="DATA", help=f"Data to look for outliers with: {DATA}")
@click.option("--all", "everything", is_flag=True, help="List every part.")
@data_options
def inspect(model: Path, calib: str | None, everything: bool, **given: Any) -> None:
    """Show the linears, norms, attention blocks and embeddings of MODEL, and how hard it is to quantize."""
    data = take_data(given)
    from onnxq import api

    with progress_display() as progress:
        result = api.inspect(model, calib, data=data, progress=progress)
    give(result, everything=everything)

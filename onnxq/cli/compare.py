"""`onnxq compare`: how far apart two models are on the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq.cli.options import DATA, data_options, take_data
from onnxq.cli.progress import progress_display
from onnxq.cli.verb import Verb, give


@click.command(cls=Verb, short_help="Compare the outputs of two models.")
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DATA", help=f"Samples to compare on: {DATA}")
@data_options
def compare(reference: Path, candidate: Path, data: str, **given: Any) -> None:
    """Compare the outputs of CANDIDATE with those of REFERENCE."""
    options = take_data(given)
    from onnxq import api

    with progress_display() as progress:
        result = api.compare(reference, candidate, data, options=options, progress=progress)
    give(result)

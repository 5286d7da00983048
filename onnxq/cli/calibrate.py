"""`onnxq calibrate`: statistics of a model's values on data, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq.cli.options import DATA, data_options, take_data
from onnxq.cli.progress import progress_display
from onnxq.cli.targets import check_apart, check_writable
from onnxq.cli.verb import Verb, give


@click.command(cls=Verb, short_help="Gather statistics of a model's values on data.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--calib", required=True, metavar="DATA", help=f"Calibration data: {DATA}")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Where to write, as .npz."
)
@data_options
def calibrate(model: Path, calib: str, output: Path, **given: Any) -> None:
    """Gather statistics of MODEL on data. Memory does not grow with the number of samples."""
    data = take_data(given)
    check_apart(model, output)
    check_writable(output)
    from onnxq import api
    from onnxq.report.results import CalibrationSummary

    with progress_display() as progress:
        statistics = api.calibrate(model, calib, data=data, progress=progress)
    statistics.save(output)
    give(CalibrationSummary(str(model), calib, len(statistics), str(output)))

"""`onnxq demo`: the whole story on a small model that ships with the package."""

from __future__ import annotations

from pathlib import Path

import click

from onnxq.cli.progress import progress_display
from onnxq.cli.targets import check_writable
from onnxq.cli.verb import Verb, give


@click.command(cls=Verb, short_help="See it work on a small model that ships with it.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    default=Path("onnxq-demo-report.html"),
    metavar="FILE.html",
    help="Where to write the report.  [default: onnxq-demo-report.html]",
)
def demo(report: Path) -> None:
    """Read handwritten digits with one transformer three ways: fp32, plain INT8, and INT8 by onnxq."""
    check_writable(report)
    from onnxq import api

    with progress_display() as progress:
        result = api.demo(report=report, progress=progress)
    give(result)

"""`onnxq apply`: chosen passes and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.options import DATA, data_options, take_data
from onnxq.cli.progress import progress_display
from onnxq.cli.promises import refuse_broken_promises
from onnxq.cli.targets import check_writable
from onnxq.cli.verb import Verb, give, say

if TYPE_CHECKING:
    from onnxq.api.clipping import Clip


@click.command(cls=Verb, short_help="Run chosen passes on a model.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--pass",
    "passes",
    required=True,
    multiple=True,
    metavar="SPEC",
    help='E.g. "fold-gamma{guard=1.0}", or gs:module:function for a graphsurgeon function; repeat for more.',
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where to write.")
@click.option("--calib", metavar="DATA", help=f"Calibration data, for passes that need statistics: {DATA}")
@click.option(
    "--clip",
    type=click.Choice(["none", "coarse", "fine"]),
    default="none",
    show_default=True,
    help="Clip ranges of quantize-linears token-wise, by what that does to outputs on a part of the data.",
)
@data_options
def apply(
    model: Path, passes: tuple[str, ...], output: Path, calib: str | None, clip: Clip, **given: Any
) -> None:
    """Run passes on MODEL in the order given, each checked against its promise.

    `onnxq passes` lists them, `onnxq passes NAME` explains one. If a pass breaks its promise, nothing is
    written.
    """
    from onnxq.recipe import parse_pass

    parsed = [parse_pass(text) for text in passes]
    data = take_data(given)
    check_writable(output)
    from onnxq import api

    with progress_display() as progress:
        result = api.apply(model, parsed, calibration=calib, data=data, clip=clip, progress=progress)
    give(result.report)
    refuse_broken_promises(result.report.passes, output)
    result.save(output)
    say(f"The model is in {output}")

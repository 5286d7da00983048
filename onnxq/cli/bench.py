"""`onnxq bench`: honest latency of models, on this machine or on another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.options import cases_of, shape_option, threads_option
from onnxq.cli.progress import progress_display
from onnxq.cli.targets import check_apart, check_writable, write_text
from onnxq.cli.verb import Verb, give, say
from onnxq.cli.words import Pair, Processors, Sizes
from onnxq.errors import UsageProblem

if TYPE_CHECKING:
    from onnxq.report.results import BenchResult


@click.command(cls=Verb, short_help="Time models on this machine, or on another.")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@shape_option
@threads_option
@click.option("--rounds", type=int, help="Processes started for each model and shape.  [default: 5]")
@click.option("--seconds", type=float, help="Time measured in each process.  [default: 1.0]")
@click.option("--warmup", type=float, help="Longest warm-up in seconds.  [default: as --seconds]")
@click.option("--ops", is_flag=True, default=None, help="Time each operator, too.")
@click.option(
    "--save",
    "saves",
    type=click.Path(path_type=Path),
    metavar="FILE.html|.json",
    multiple=True,
    help="Write a page with pictures, or all figures.",
)
@click.option("--provider", help="Execution provider: cpu, cuda, tensorrt, openvino ...  [default: cpu]")
@click.option(
    "--provider-option", "provider_options", type=Pair(), multiple=True, help="An option of the provider."
)
@click.option(
    "--disable-optimizer",
    "disabled_optimizers",
    metavar="NAME",
    multiple=True,
    help="A rewriting of onnxruntime's own to leave out, e.g. SkipLayerNormFusion.",
)
@click.option("--affinity", type=Processors(), help="Processors to keep to, or any.  [default: one a thread]")
@click.option("--timeout", type=float, help="Seconds that one process may take.  [default: 600]")
@click.option(
    "--host", metavar="USER@DEVICE[:PORT]", help="Copy the models there over ssh, and time them there."
)
@click.option("--host-python", metavar="PATH", help="Its Python, with onnxruntime.  [default: python3]")
@click.option(
    "--ssh", metavar="COMMAND", help="ssh with options of yours, e.g. 'ssh -i key'.  [default: ssh]"
)
def bench(models: tuple[Path, ...], shapes: tuple[Sizes, ...], saves: tuple[Path, ...], **given: Any) -> None:
    """Time models against the first of them, one model a process, in alternated rounds.

    \b
    Several shapes in one go, and dimensions by their names:
      onnxq bench a.onnx b.onnx --shape input_ids=1x128 --shape input_ids=8x128
      onnxq bench a.onnx --shape batch=1,sequence=128 --shape batch=8,sequence=128
    """  # noqa: D301 - click reads the escape
    _check_saves(saves, models)
    from onnxq.recipe import BenchSettings

    given["provider_options"] = dict(given["provider_options"])
    told = {name: value for name, value in given.items() if value is not None}
    settings = BenchSettings(shapes=cases_of(shapes), **told)
    from onnxq import api

    with progress_display() as progress:
        result = api.bench(models, settings, progress=progress)
    give(result)
    for path in saves:
        write_text(path, _saved(result, path))
        say(f"The figures are in {path}")


def _check_saves(saves: tuple[Path, ...], models: tuple[Path, ...]) -> None:
    """Refuse, before the work, what could not be written after it."""
    for path in saves:
        if path.suffix not in (".html", ".json"):
            raise UsageProblem(
                f"--save {path}: what kind of file?",
                hint="Its name ends in .html or .json.",
                slug="bad-setting",
            )
        for model in models:
            check_apart(path, model)
    check_apart(*saves)
    check_writable(*saves)


def _saved(result: BenchResult, path: Path) -> str:
    if path.suffix == ".json":
        from onnxq.report.encode import to_json

        return to_json(result) + "\n"
    from onnxq.report.bench_page import html_page

    return html_page(result)

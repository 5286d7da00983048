"""`onnxq optimize`: a model in, a faster one out, and the evidence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.options import DATA, cases_of, data_options, shape_option, take_data, threads_option
from onnxq.cli.progress import progress_display
from onnxq.cli.promises import refuse_broken_promises
from onnxq.cli.targets import check_apart, check_writable, default_output, write_text
from onnxq.cli.verb import Verb, give, say
from onnxq.cli.words import Fraction, Size
from onnxq.errors import GoalMissed, UsageProblem

if TYPE_CHECKING:
    from onnxq.recipe import OptimizeSettings
    from onnxq.report.results import Report


@click.command(cls=Verb, short_help="Make a model faster, and measure what that costs.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--calib", metavar="DATA", help=f"Calibration data: {DATA}  [required]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: MODEL.int8.onnx]"
)
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE.html", help="Write a page with pictures."
)
@click.option(
    "--recipe", type=click.Path(), metavar="FILE.toml", help="Settings; options here override them."
)
@click.option(
    "--save-recipe", type=click.Path(path_type=Path), metavar="FILE.toml", help="Write all settings used."
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep intermediate results there; after a kill, the same command goes on from them.",
)
@click.option("--target", help="What to run on: auto (this processor), openvino, cuda ...  [default: auto]")
@click.option(
    "--effort",
    type=click.Choice(["fast", "balanced", "best"]),
    help="Time spent on fidelity.  [default: balanced]",
)
@click.option(
    "--format",
    type=click.Choice(["kernel", "qdq"]),
    help="ONNX Runtime's fastest nodes, or plain Q/DQ.  [default: kernel]",
)
@click.option(
    "--weights",
    type=click.Choice(["int8", "int4"]),
    help="int4 for the smallest file, in blocks of 64 with a scale each.  [default: int8]",
)
@click.option(
    "--ranges",
    type=click.Choice(["minmax", "average", "percentile", "mse", "token", "level"]),
    help="How activation ranges are chosen.  [default: by trying]",
)
@click.option("--min-fidelity", type=float, help="Refuse a lower mean cosine, e.g. 0.999.")
@click.option("--max-drop", type=Fraction(), help="Refuse a larger loss of what --eval measures, e.g. 1%.")
@click.option("--eval", metavar="MODULE:FUNCTION", help="Scores a model; higher is better.")
@click.option("--min-speedup", type=float, help="Refuse a lower speed relative to the original, e.g. 1.5.")
@click.option("--max-size", type=Size(), help="Refuse larger weights, e.g. 25MB.")
@click.option(
    "--pass", "passes", multiple=True, metavar="SPEC", help="Run these passes instead, in this order."
)
@click.option(
    "--keep-float", multiple=True, metavar="NODE", help="Leave a node alone; * stands for any text."
)
@click.option(
    "--verify", type=click.Choice(["end", "each", "never"]), help="When exactness is checked.  [default: end]"
)
@click.option("--seed", type=int, help="Of everything random.  [default: 0]")
@threads_option
@shape_option
@data_options
def optimize(
    model: Path,
    calib: str | None,
    output: Path | None,
    report: Path | None,
    recipe: str | None,
    save_recipe: Path | None,
    work_dir: Path | None,
    **given: Any,
) -> None:
    """Rewrite MODEL so that it runs faster, and measure what that costs.

    Fidelity is judged on samples that were not used to calibrate, speed by running both models in turns. A
    result that misses a goal is reported and not written, nor is one of --pass if a pass broke its promise.
    """
    if calib is None:
        raise UsageProblem("optimize needs data to calibrate with", hint=f"--calib {DATA}", slug="no-data")
    settings = _settings(recipe, given)
    written = output or default_output(model)
    check_apart(model, report, save_recipe)
    check_apart(written, report, save_recipe)
    check_writable(written, report, save_recipe)
    from onnxq import api

    with progress_display() as progress:
        result = api.optimize(model, calib, settings=settings, progress=progress, work_dir=work_dir)
    give(result.report)
    if report is not None:
        from onnxq.report.page import html_page

        write_text(report, html_page(result.report))
        say(f"The report is in {report}")
    if save_recipe is not None:
        write_text(save_recipe, result.report.recipe)
    if settings.passes is not None:
        refuse_broken_promises(result.report.passes, written)
    _refuse_missed_goals(result.report, written)
    result.save(written)
    say(f"The model is in {written}")
    if result.opening.options:
        say(f"How to open it is in {api.opening.path_beside(written)}; `onnxq.session(path)` does so")


def _settings(recipe: str | None, given: dict[str, Any]) -> OptimizeSettings:
    """The recipe's settings, or the defaults, with what the command line says in their place."""
    from onnxq.recipe import OptimizeSettings, read_recipe

    base = OptimizeSettings() if recipe is None else read_recipe(recipe)
    data = take_data(given, base.data)
    given["shapes"] = cases_of(given["shapes"])
    told = {name: value for name, value in given.items() if value not in (None, (), {})}
    return dataclasses.replace(base, data=data, **told)


def _refuse_missed_goals(report: Report, output: Path) -> None:
    missed = [goal for goal in report.goals if not goal.met]
    if missed:
        ways = dict.fromkeys(goal.way_out for goal in missed if goal.way_out)
        hint = " ".join((f"Nothing was written at {output}.", *ways))
        told = "; ".join(f"{goal.asked}: got {goal.got}" for goal in missed)
        raise GoalMissed(told, hint=hint, slug="goal-missed")

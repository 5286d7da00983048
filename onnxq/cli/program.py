"""The program: its verbs, its version, its exit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import click

from onnxq.cli.apply import apply
from onnxq.cli.bench import bench
from onnxq.cli.calibrate import calibrate
from onnxq.cli.compare import compare
from onnxq.cli.demo import demo
from onnxq.cli.doctor import doctor
from onnxq.cli.inspect import inspect
from onnxq.cli.optimize import optimize
from onnxq.cli.passes import passes


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code.

    Args:
        arguments: Words after the program's name; those of the process if None.
    """
    program.main(arguments, prog_name="onnxq")


def _version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"onnxq {version('onnxq')}")
    except PackageNotFoundError:
        click.echo("onnxq, not installed: run from its source folder")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
)
def program() -> None:
    """Make ONNX transformers faster: exact rewrites, measured INT8, and the evidence for both.

    \b
    First steps:
      onnxq demo                                   see it work on a small model that ships with it
      onnxq optimize model.onnx --calib data.npz   make model.int8.onnx, with figures
      onnxq doctor                                 what this machine can do
    """  # noqa: D301 - click reads the escape


for _verb in (optimize, apply, passes, calibrate, compare, bench, inspect, doctor, demo):
    program.add_command(_verb)

"""Options that several verbs take, and how they become settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxq.cli.words import Numbers, Shapes, Sizes
from onnxq.errors import UsageProblem

if TYPE_CHECKING:
    from onnxq.recipe import DataSettings

Command = TypeVar("Command", bound=Callable[..., Any])

DATA = (
    "data.npz, a folder of .npz files or images, texts.jsonl with --tokenizer, module:function, "
    "or the word random."
)
_DATA_NAMES = ("samples", "batch_size", "tokenizer", "max_length", "image_size", "mean", "std")


def data_options(command: Command) -> Command:
    """How data is read: the fields of `DataSettings`."""
    for option in reversed(
        (
            click.option("--samples", type=int, help="Use at most so many samples."),
            click.option("--batch-size", type=int, help="Samples in one run of the model.  [default: 8]"),
            click.option("--tokenizer", metavar="FILE", help="tokenizer.json, for texts."),
            click.option("--max-length", type=int, help="Cut texts after so many tokens.  [default: 128]"),
            click.option("--image-size", type=int, help="Height and width of images, in pixels."),
            click.option("--mean", type=Numbers(), help="Subtracted from pixels scaled to 0..1, per colour."),
            click.option("--std", type=Numbers(), help="Divides them then, per colour."),
        )
    ):
        command = option(command)
    return command


def shape_option(command: Command) -> Command:
    """Shapes of inputs and sizes of dimensions, in one case or several."""
    return click.option(
        "--shape",
        "shapes",
        type=Shapes(),
        metavar="NAME=1x128[,...]",
        multiple=True,
        help="Shape of an input, or size of a dimension (batch=8); a name again begins a new case.",
    )(command)


def cases_of(shapes: Iterable[Sizes]) -> Any:
    """What is timed one after the other: a name that comes again begins the next case.

    So shapes of several inputs belong together, and two shapes of one input are two cases.
    """
    cases: list[dict[str, tuple[int, ...]]] = [{}]
    for told in shapes:
        names = [name for name, _ in told]
        if len(set(names)) < len(names):
            raise UsageProblem(
                f"--shape names {max(names, key=names.count)} twice in one case",
                hint="Give each case a --shape of its own.",
                slug="same-shape",
            )
        if cases[-1].keys() & set(names):
            cases.append({})
        cases[-1].update(told)
    return cases[0] if len(cases) == 1 else tuple(cases)


def threads_option(command: Command) -> Command:
    """Threads of the runtime."""
    return click.option("--threads", type=int, help="Threads of the runtime.  [default: all cores]")(command)


def take_data(given: dict[str, Any], base: DataSettings | None = None) -> DataSettings:
    """The settings of data, taken out of what was given on the command line; the rest is from `base`."""
    import dataclasses

    from onnxq.recipe import DataSettings

    chosen = {name: given.pop(name) for name in _DATA_NAMES}
    told = {name: value for name, value in chosen.items() if value is not None}
    return dataclasses.replace(base or DataSettings(), **told)

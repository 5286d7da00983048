"""Options that several verbs take, and how they become settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxq.cli.words import Numbers, Shape

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
    """The shape of inputs, once for each input."""
    told = "Shape of one input; repeat for others."
    return click.option("--shape", "shapes", type=Shape(), metavar="NAME=1x128", multiple=True, help=told)(
        command
    )


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

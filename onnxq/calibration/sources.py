"""From what the user says to a data source: each kind of data has its own module."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.calibration.arrays import open_mapping, open_npz
from onnxq.calibration.feeds import open_feeds, open_folder, open_function
from onnxq.calibration.images import SUFFIXES, open_images
from onnxq.calibration.inputs import InputSpec, input_specs
from onnxq.calibration.source import DataOptions, DataSource
from onnxq.calibration.synthetic import open_random
from onnxq.calibration.text import open_text
from onnxq.errors import CalibrationError

Feed = Mapping[str, Any]
DataSpec = str | Path | Feed | Iterable[Feed] | Callable[[], Iterable[Feed]] | DataSource

KINDS = "data.npz, a folder of .npz files or images, data.jsonl with --tokenizer, module:function, or random"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def open_data(spec: DataSpec, model: ir.Model, options: DataOptions | None = None) -> DataSource:
    """A data source for `model`, checked as far as that is possible without decoding everything.

    Args:
        spec: A path (``.npz``, ``.jsonl``, a folder of ``.npz`` files or of images), ``"module:function"``,
            ``"random"``; or arrays by input name (first axis samples), a list of feeds, a function that
            yields feeds, or a source that is open already (given back as it is).
        model: Whose inputs the data is for.
        options: How to read it.

    Raises:
        CalibrationError: There is no such data, or it does not fit the model; the message names what the
            model wants and what was given.
    """
    options = options or DataOptions()
    _check_options(options)
    specs = input_specs(model)
    if isinstance(spec, DataSource):
        return _reused(spec, specs)
    if isinstance(spec, str) and spec == "random":
        return open_random(model, specs, options)
    if isinstance(spec, (str, Path)):
        return _open_named(spec, specs, options)
    if isinstance(spec, Mapping):
        return open_mapping(spec, specs, options)
    return open_feeds(spec, specs, options)


def _reused(source: DataSource, specs: tuple[InputSpec, ...]) -> DataSource:
    """A source that was opened before, if it was opened for inputs like these."""
    if [(spec.name, spec.dtype) for spec in source.specs] != [(spec.name, spec.dtype) for spec in specs]:
        raise CalibrationError(
            f"{source.reader.origin} was opened for {', '.join(map(str, source.specs))}; "
            f"the model wants {', '.join(map(str, specs))}",
            hint="open it for this model",
            slug="other-model",
        )
    return source


def _open_named(spec: str | Path, specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    path = Path(spec)
    if path.is_dir():
        return _open_directory(path, specs, options)
    if path.is_file() and path.suffix in (".npz", ".jsonl"):
        opener = open_npz if path.suffix == ".npz" else open_text
        return opener(path, specs, options)
    if isinstance(spec, str) and not path.exists() and _FUNCTION.fullmatch(spec):
        return open_function(spec, specs, options)
    if path.exists():
        raise CalibrationError(
            f"{path} is of no known kind of data", hint=f"give {KINDS}", slug="unknown-kind"
        )
    raise CalibrationError(f"there is no {path}", hint=f"give {KINDS}", slug="no-such-data")


def _open_directory(folder: Path, specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    arrays = [file for file in files if file.suffix == ".npz"]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if arrays and images:
        raise CalibrationError(
            f"{folder} holds {len(arrays)} .npz files and {len(images)} images",
            hint="give a folder of one kind",
            slug="mixed-folder",
        )
    if arrays:
        return open_folder(folder, arrays, specs, options)
    if images:
        return open_images(folder, images, specs, options)
    slug, what = ("unknown-kind", "neither .npz files nor images") if files else ("empty-source", "nothing")
    raise CalibrationError(f"{folder} holds {what}", hint=f"give {KINDS}", slug=slug)


def _check_options(options: DataOptions) -> None:
    least = {"batch_size": 1, "max_length": 1, "samples": 1, "limit": 1, "image_size": 1}
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise CalibrationError(f"{name} is {value}, the least is {low}", slug="bad-option")

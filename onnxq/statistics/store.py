"""Statistics on disk: one ``.npz`` of plain arrays and an index in JSON, read without unpickling anything."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from onnxq.errors import CalibrationError, OutputError
from onnxq.statistics.exact_sum import ExactSum
from onnxq.statistics.examples import Examples
from onnxq.statistics.extremes import AverageExtremes, ChannelExtremes, TokenExtremes
from onnxq.statistics.histogram import Histogram
from onnxq.statistics.moments import RawMoments, SecondMoments
from onnxq.statistics.rows import Rows
from onnxq.statistics.samples import SampleExtremes
from onnxq.statistics.tensor import Statistics, TensorStatistics

FORMAT = 5
"""1 kept second moments as exact sums, 2 of tokens as they are, 3 no extremes by sample, 4 one field more."""
_CLASSES = {
    each.__name__: each
    for each in (
        ExactSum,
        AverageExtremes,
        ChannelExtremes,
        Examples,
        TokenExtremes,
        Histogram,
        RawMoments,
        Rows,
        SampleExtremes,
        SecondMoments,
        TensorStatistics,
    )
}
_BROKEN = (
    AttributeError,  # one array in place of an archive
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,  # a compression that zipfile does not know
    OSError,  # a place outside the file
    OverflowError,
    RuntimeError,  # an encrypted archive
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def bytes_of(part: Any) -> int:
    """Bytes of all arrays in a statistic, or in a mapping of them."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if isinstance(part, Mapping):
        return sum(map(bytes_of, part.values()))
    if isinstance(part, tuple):
        return sum(map(bytes_of, part))
    return sum(bytes_of(getattr(part, each.name)) for each in fields(part)) if is_dataclass(part) else 0


def write(statistics: Statistics, path: Path) -> None:
    """Write `statistics` to `path`, atomically.

    Raises:
        OutputError: If that failed; whatever was at `path` is still there.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    index = {
        "format": FORMAT,
        "model": statistics.model,
        "data": sorted(statistics.data),
        "skipped": dict(sorted(statistics.skipped.items())),
        "tensors": {name: _flatten(statistics[name], arrays) for name in sorted(statistics)},
    }
    arrays["index"] = np.frombuffer(json.dumps(index).encode(), dtype=np.uint8)
    temporary: str | None = None
    try:
        temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
        with open(temporary, "xb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"cannot write statistics to {path}: {error}", slug="not-written") from error
        raise


def read(path: Path) -> Statistics:
    """Statistics as `write` left them.

    Raises:
        CalibrationError: No such file, or its content is damaged or not ours.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CalibrationError(
            f"cannot read statistics from {path}: {error}", slug="no-statistics"
        ) from error
    with file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                return _unpack(archive)
        except _BROKEN as error:
            raise CalibrationError(
                f"{path} does not hold statistics: {error}",
                hint="make them again with `onnxq calibrate MODEL --calib DATA -o STATS`",
                slug="corrupt-statistics",
            ) from error


def _unpack(archive: Mapping[str, npt.NDArray[Any]]) -> Statistics:
    index = json.loads(archive["index"].tobytes())
    if index["format"] != FORMAT:
        raise ValueError(f"format {index['format']}, expected {FORMAT}")
    tensors = {}
    for name, tree in index["tensors"].items():
        found = _restore(tree, archive)
        if not isinstance(found, TensorStatistics):
            raise TypeError(f"{name} holds a {type(found).__name__}")
        tensors[name] = found
    return Statistics(tensors, dict(index["skipped"]), str(index["model"]), frozenset(index["data"]))


def _flatten(part: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """`part` as JSON, its arrays moved to `arrays`."""
    if isinstance(part, np.ndarray):
        member = f"a{len(arrays)}"
        arrays[member] = part
        return {"array": member}
    if isinstance(part, tuple):
        return [_flatten(each, arrays) for each in part]
    if is_dataclass(part):
        content = {each.name: _flatten(getattr(part, each.name), arrays) for each in fields(part)}
        return {"class": type(part).__name__, **content}
    return part


def _restore(tree: Any, archive: Mapping[str, npt.NDArray[Any]]) -> Any:
    """The inverse of `_flatten`, for the classes of this package alone."""
    if isinstance(tree, list):
        return tuple(_restore(each, archive) for each in tree)
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return archive[tree["array"]]
    made = _CLASSES[tree["class"]](
        **{name: _restore(each, archive) for name, each in tree.items() if name != "class"}
    )
    hints = get_type_hints(type(made))
    for name in (each.name for each in fields(made)):
        expected = hints[name]
        if not _fits(getattr(made, name), expected):
            raise TypeError(f"{tree['class']}.{name} holds a {type(getattr(made, name)).__name__}")
    return made


def _fits(value: Any, expected: Any) -> bool:
    """Whether `value` is of the annotated type `expected`, as far as these classes use annotations."""
    if isinstance(expected, UnionType):
        return any(_fits(value, each) for each in get_args(expected))
    if get_origin(expected) is tuple:
        return isinstance(value, tuple) and _fit_each(value, get_args(expected))
    kind = get_origin(expected) or expected
    return isinstance(value, (int, float) if kind is float else kind)


def _fit_each(values: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Whether `values` are of the annotated types, the first of them for all where an ellipsis follows it."""
    if expected[1:] == (...,):
        expected = expected[:1] * len(values)
    return len(values) == len(expected) and all(map(_fits, values, expected))

"""Arrays by input name, first axis samples: an ``.npz`` file, or a mapping in memory.

An ``.npz`` file is read as a stream, a sample at a time, so that its size does not matter. An array that all
samples share (a scalar, or one that fits its input as it is and does not have as many rows as the others)
goes into each run.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from onnxq.calibration.inputs import Array, InputSpec, describe, fixed_batch, require_names
from onnxq.calibration.source import DataOptions, DataSource, digest_of, make_source, scan
from onnxq.errors import CalibrationError

_BROKEN = (
    EOFError,
    MemoryError,
    NotImplementedError,  # a compression that zipfile does not know
    OverflowError,
    RuntimeError,  # an encrypted archive
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


class Shaped(Protocol):
    """Something with the element type and shape of an array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""


@dataclass(frozen=True)
class Layout:
    """What the arrays mean to the model.

    Attributes:
        count: Samples.
        rows: Names of arrays whose first axis counts samples.
        shared: Names of arrays that go into each run as they are.
        batched: Whether samples are put together along a new first axis; else each is a run of its own.
    """

    count: int
    rows: tuple[str, ...]
    shared: tuple[str, ...]
    batched: bool


@dataclass(frozen=True)
class MemoryReader:
    """Arrays in memory."""

    arrays: Mapping[str, Array] = field(repr=False)
    layout: Layout
    origin: str = "calibration arrays"
    preparation: str = ""
    uniform: bool = True

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Samples, as views."""
        for index in indices:
            yield {name: self.arrays[name][index] for name in self.layout.rows}

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Samples put together, and what they share."""
        shared = {name: self.arrays[name] for name in self.layout.shared}
        return {**stacked(items, batched=self.layout.batched), **shared}


@dataclass(frozen=True)
class Member:
    """An array of an ``.npz`` file, by its header."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    column_major: bool


@dataclass(frozen=True)
class NpzReader:
    """Arrays of an ``.npz`` file, read row by row."""

    path: Path
    members: Mapping[str, Member]
    layout: Layout
    shared: Mapping[str, Array] = field(repr=False)
    preparation: str = ""
    uniform: bool = True

    @property
    def origin(self) -> str:
        """The file."""
        return str(self.path)

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Samples, one in memory at a time."""
        with _damage_of(self.path), ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            columns = []
            for name in self.layout.rows:
                stream = stack.enter_context(archive.open(f"{name}.npy"))
                columns.append(_rows(stream, indices))
            for row in zip(*columns, strict=True):
                yield dict(zip(self.layout.rows, row, strict=True))

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Samples put together, and what they share."""
        return {**stacked(items, batched=self.layout.batched), **self.shared}


class _damage_of:  # noqa: N801 - reads as a clause of `with`
    """Turns whatever a damaged archive raises into one error that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise CalibrationError(f"cannot read {self.path}: {error}", slug="unreadable-data") from error
        if isinstance(error, _BROKEN):
            raise CalibrationError(
                f"{self.path} is damaged or no .npz file: {error}",
                hint="write it again with numpy.savez",
                slug="corrupt-npz",
            ) from error


def open_npz(path: Path, specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    """A source over an ``.npz`` file.

    Raises:
        CalibrationError: It is damaged, holds objects, or its arrays do not fit the model.
    """
    members = npz_members(path)
    layout = layout_of(members, specs, str(path))
    with _damage_of(path), zipfile.ZipFile(path) as archive:
        shared = {name: _whole(archive, name) for name in layout.shared}
    preparation = digest_of(shared).hex() if shared else ""
    return _source(NpzReader(path, members, layout, shared, preparation), specs, options)


def open_mapping(arrays: Mapping[str, Any], specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    """A source over arrays in memory.

    Raises:
        CalibrationError: They do not fit the model.
    """
    held = {name: np.asarray(array) for name, array in arrays.items()}
    layout = layout_of(held, specs, "calibration arrays")
    shared = {name: held[name] for name in layout.shared}
    preparation = digest_of(shared).hex() if shared else ""
    return _source(MemoryReader(held, layout, preparation=preparation), specs, options)


def npz_members(path: Path) -> dict[str, Member]:
    """The arrays of an ``.npz`` file, by their headers alone.

    Raises:
        CalibrationError: It is damaged, or an array holds Python objects.
    """
    members = {}
    with _damage_of(path), zipfile.ZipFile(path) as archive:
        for file in archive.namelist():
            with archive.open(file) as stream:
                shape, column_major, dtype = _header(stream)
            name = file.removesuffix(".npy")
            if dtype.hasobject:
                raise CalibrationError(
                    f"{path}: {name!r} holds pickled Python objects, which are never read",
                    hint="store arrays of numbers; ragged samples go into a folder of .npz files",
                    slug="object-array",
                )
            members[name] = Member(name, dtype, shape, column_major)
    return members


def layout_of(given: Mapping[str, Any], specs: tuple[InputSpec, ...], origin: str) -> Layout:
    """What each array means: rows of samples, or shared by all.

    Raises:
        CalibrationError: Arrays are missing, or disagree on the number of samples.
    """
    require_names(given, specs, origin)
    wanted = {spec.name: spec for spec in specs}
    sizes = Counter(given[name].shape[0] for name in wanted if given[name].shape)
    count = max(sizes, key=lambda size: (sizes[size], size), default=0)
    shared = tuple(name for name in wanted if not given[name].shape or given[name].shape[0] != count)
    odd = [name for name in shared if not _fits_as_is(given[name].shape, wanted[name])]
    if odd:
        raise CalibrationError(
            f"{origin}: arrays disagree on the number of samples: "
            + ", ".join(describe(name, given[name]) for name in wanted),
            hint="the first axis of every array counts samples",
            slug="sample-counts",
        )
    rows = tuple(name for name in wanted if name not in shared)
    batched = all(wanted[name].rank != len(given[name].shape) - 1 for name in rows)
    return Layout(count, rows, shared, batched)


def stacked(items: Sequence[Mapping[str, Any]], *, batched: bool) -> dict[str, Array]:
    """Samples of one shape put together along a new first axis, or the only one as it is."""
    if not batched:
        return {name: np.asarray(array) for name, array in items[0].items()}
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


def _source(
    reader: MemoryReader | NpzReader, specs: tuple[InputSpec, ...], options: DataOptions
) -> DataSource:
    layout = reader.layout
    fixed = fixed_batch(spec for spec in specs if spec.name in layout.rows) if layout.batched else 1
    count = layout.count if options.limit is None else min(layout.count, options.limit)
    items = scan(reader, count, specs, whole_batch=fixed)
    return make_source(
        reader, specs, items, options, batch_size=fixed or options.batch_size, whole_batches=fixed is not None
    )


def _fits_as_is(shape: tuple[int, ...], spec: InputSpec) -> bool:
    if not shape:
        return spec.rank in (0, None)
    dims = spec.shape
    return dims is not None and len(dims) == len(shape) and isinstance(dims[0], int) and dims[0] == shape[0]


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, column_major, dtype = read(stream)
    if any(size < 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, column_major, dtype


def _rows(stream: IO[bytes], indices: Sequence[int]) -> Iterator[Array]:
    """Rows of the array in `stream`, by ascending index, without holding the others."""
    shape, column_major, dtype = _header(stream)
    if column_major and len(shape) > 1:
        yield from _column_major(stream, shape, dtype)[list(indices)]
        return
    size = dtype.itemsize * math.prod(shape[1:])
    at = 0
    for index in indices:
        while at < index:
            _exactly(stream, size)
            at += 1
        yield np.frombuffer(_exactly(stream, size), dtype).reshape(shape[1:])
        at += 1


def _column_major(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    data = _exactly(stream, dtype.itemsize * math.prod(shape))
    return np.frombuffer(data, dtype).reshape(shape, order="F")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{size - len(data)} bytes are missing")
    return data


def whole_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Those arrays of an ``.npz`` file that are in `names`, wholly in memory.

    Raises:
        CalibrationError: The file is damaged or holds objects.
    """
    with _damage_of(path), zipfile.ZipFile(path) as archive:
        present = [file.removesuffix(".npy") for file in archive.namelist()]
        return {name: _whole(archive, name) for name in present if name in names}


def _whole(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(f"{name}.npy") as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array

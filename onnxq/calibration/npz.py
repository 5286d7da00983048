"""``.npz`` files, which are hostile until read: headers first, rows one by one, never a pickle."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxq.calibration.inputs import Array
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


@dataclass(frozen=True)
class Member:
    """An array of an ``.npz`` file, by its header."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    column_major: bool


def npz_members(path: Path) -> dict[str, Member]:
    """The arrays of an ``.npz`` file, by their headers alone.

    Raises:
        CalibrationError: It is damaged, or an array holds Python objects.
    """
    members = {}
    with _damage_named(path), zipfile.ZipFile(path) as archive:
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


def read_rows(path: Path, names: Sequence[str], indices: Sequence[int]) -> Iterator[dict[str, Array]]:
    """Rows of several arrays at once, by ascending index, one in memory at a time.

    Raises:
        CalibrationError: The file is damaged.
    """
    with _damage_named(path), ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        streams = [stack.enter_context(archive.open(f"{name}.npy")) for name in names]
        for row in zip(*(_rows(stream, indices) for stream in streams), strict=True):
            yield dict(zip(names, row, strict=True))


def whole_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Those arrays of an ``.npz`` file that are in `names`, wholly in memory.

    Raises:
        CalibrationError: The file is damaged or holds objects.
    """
    with _damage_named(path), zipfile.ZipFile(path) as archive:
        present = [file.removesuffix(".npy") for file in archive.namelist()]
        return {name: _whole(archive, name) for name in present if name in names}


def _whole(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(f"{name}.npy") as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array


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


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns whatever a damaged archive raises into one error that names it."""
    try:
        yield
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error}", slug="unreadable-data") from error
    except _BROKEN as error:
        raise CalibrationError(
            f"{path} is damaged or no .npz file: {error}",
            hint="write it again with numpy.savez",
            slug="corrupt-npz",
        ) from error

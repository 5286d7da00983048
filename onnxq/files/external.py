"""External data, resolved by our own rules: regular files inside the model's folder, and nothing else.

A location is walked part by part with `openat`, never following a link, and what was opened is checked again
through its descriptor, so that a name cannot come to mean another file between the look and the use.

One layout of links is honest and common: the cache of the Hugging Face hub, where the model and its data in
``snapshots/<revision>/`` are links to ``blobs/<hash>`` of the same repository. A link is followed there,
and only there.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxq.errors import ExternalDataError
from onnxq.files.recognise import is_lfs_pointer

if TYPE_CHECKING:
    import onnx

Bytes = npt.NDArray[np.uint8]

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_READ = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
_MAX_LINKS = 40
_MAPPED_FROM = 1 << 20
"""Smaller files are read: a mapping costs a descriptor, and some exporters write a file per tensor."""


@dataclass(frozen=True)
class Reference:
    """Where a tensor says its bytes are.

    Attributes:
        where: The tensor, in words, for messages.
        location: Path of the data file, relative to the model's folder, as written in the model.
        offset: First byte.
        length: Number of bytes.
        checksum: SHA-1 of the whole data file in hex; empty if the model gives none.
    """

    where: str
    location: str
    offset: int
    length: int
    checksum: str = ""

    @classmethod
    def of(cls, tensor: onnx.TensorProto, nbytes: int, where: str) -> Reference:
        """Read the entries of a tensor whose type and dimensions ask for `nbytes` bytes.

        Raises:
            ExternalDataError: An entry is unknown, given twice, not a number, or does not fit the dimensions.
        """
        entries: dict[str, str] = {}
        for entry in tensor.external_data:
            if entry.key not in _KEYS:
                raise _refuse("unknown-key", where, f"unknown external data key {entry.key[:40]!r}")
            if entry.key in entries:
                raise _refuse("duplicate-key", where, f"external data key {entry.key!r} given twice")
            entries[entry.key] = entry.value
        offset = _number(entries, "offset", 0, where)
        length = _number(entries, "length", nbytes, where)
        if length != nbytes:
            raise _refuse(
                "size-mismatch", where, f"length {length:,} where its dimensions need {nbytes:,} bytes"
            )
        return cls(where, entries.get("location", ""), offset, length, entries.get("checksum", "").lower())


class DataFolder:
    """The folder that a model's external data must lie in. Opens each data file once.

    Args:
        model: Path of the model file; None for a model that has no file, and so no external data.

    Attributes:
        files: What was opened, by location.
    """

    def __init__(self, model: Path | None) -> None:
        self._folder = _home_of(model) if model is not None else None
        self.files: dict[str, Bytes] = {}
        self._checksums: dict[str, str] = {}

    def read(self, reference: Reference) -> Bytes:
        """The bytes of `reference`, read-only, mapped where the file is large.

        Raises:
            ExternalDataError: The location is not a regular file inside the folder, is too short, or does not
                have the checksum that is given.
        """
        name = "/".join(_parts(reference))
        if name not in self.files:
            self.files[name] = self._open(reference)
        data = self.files[name]
        if reference.checksum and name not in self._checksums:
            self._checksums[name] = hashlib.sha1(data.data, usedforsecurity=False).hexdigest()
        if reference.checksum and self._checksums[name] != reference.checksum:
            raise _refuse("checksum-mismatch", reference, "is not the file whose checksum the model gives")
        end = reference.offset + reference.length
        if end > data.size:
            if is_lfs_pointer(data[:64].tobytes()):
                raise _refuse("lfs-pointer", reference, "is a git-LFS pointer", "Run `git lfs pull`.")
            raise _refuse(
                "out-of-bounds",
                reference,
                f"has {data.size:,} bytes, and bytes up to {end:,} are asked for",
                "The data file is cut short or belongs to another model. Copy it again.",
            )
        return data[reference.offset : end]

    def _open(self, reference: Reference) -> Bytes:
        if self._folder is None:
            raise _refuse("no-folder", reference, "is external data", "Load the model from its file instead.")
        try:
            with ExitStack() as stack:
                return _map(_open_inside(self._folder, reference, stack))
        except FileNotFoundError:
            hint = "Copy the data file that belongs to the model next to it."
            raise _refuse("missing", reference, "does not exist", hint) from None
        except (OSError, ValueError) as error:
            raise _refuse("unreadable", reference, f"cannot be read: {error}") from error


def _refuse(slug: str, where: Reference | str, what: str, hint: str = "") -> ExternalDataError:
    """The error for one tensor, or for the location it names."""
    subject = where if isinstance(where, str) else f"{where.where}: external data {where.location!r}"
    glue = ": " if isinstance(where, str) else " "
    return ExternalDataError(f"{subject}{glue}{what}", hint=hint, slug=slug)


def _number(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise _refuse("bad-number", where, f"external data {key} {text[:40]!r} is not a number of bytes")
    return int(text)


def _home_of(model: Path) -> Path:
    """The folder to read external data from: where the model really is, or its snapshot in a hub cache."""
    path = os.path.abspath(model)
    for _ in range(_MAX_LINKS):
        folder = Path(os.path.realpath(os.path.dirname(path)))
        if not os.path.islink(path) or _cache_of(folder):
            break
        path = os.path.join(folder, os.readlink(path))
    return folder


def _cache_of(folder: Path) -> Path | None:
    """The repository of a hub cache that `folder` is a snapshot (or part of a snapshot) in."""
    for revision in (folder, *folder.parents):
        repository = revision.parent.parent
        blobs = repository / "blobs"
        if revision.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            return repository
    return None


def _parts(reference: Reference) -> list[str]:
    """The folders and the file name of a location that stays inside, as far as its text tells."""
    location = reference.location
    if location.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", location):
        raise _refuse("absolute-path", reference, "is an absolute path")
    if ".." in re.split(r"[/\\]", location):
        raise _refuse("escapes", reference, "leaves the model's folder")
    parts = [part for part in location.split("/") if part not in ("", ".")]
    if not parts:
        raise _refuse("no-location", reference, "names no file")
    return parts


def _open_inside(folder: Path, reference: Reference, stack: ExitStack) -> int:
    """Open the file that `reference` names, which must be regular and inside `folder`; `stack` closes it."""
    *parents, name = _parts(reference)
    at = _descend(folder, None, stack)
    for parent in parents:
        status = os.lstat(parent, dir_fd=at)
        if stat.S_ISLNK(status.st_mode):
            raise _refuse("symlink", reference, f"goes through the link {parent!r}")
        if not stat.S_ISDIR(status.st_mode):
            raise _refuse("not-regular", reference, f"goes through {parent!r}, which is no folder")
        at = _descend(parent, at, stack)
    if stat.S_ISLNK(os.lstat(name, dir_fd=at).st_mode):
        link = folder.joinpath(*parents, os.readlink(name, dir_fd=at))
        return _open_blob(folder, link, reference, stack)
    return _open_regular(name, at, reference, stack, names=1)


def _open_blob(folder: Path, link: Path, reference: Reference, stack: ExitStack) -> int:
    """Follow a link that a hub cache made, from a snapshot straight into the blobs of the same repository."""
    cache = _cache_of(folder)
    target = Path(os.path.normpath(link))
    if cache is None or target.parent != cache / "blobs":
        raise _refuse("symlink", reference, "is a link", "Put the data file itself next to the model.")
    blobs = _descend(target.parent, None, stack)
    if stat.S_ISLNK(os.lstat(target.name, dir_fd=blobs).st_mode):
        raise _refuse("symlink", reference, "is a link to a link")
    return _open_regular(target.name, blobs, reference, stack)


def _descend(folder: Path | str, at: int | None, stack: ExitStack) -> int:
    """Open a folder that is not itself a link."""
    descriptor = os.open(folder, _READ | os.O_DIRECTORY, dir_fd=at)
    stack.callback(os.close, descriptor)
    return descriptor


def _open_regular(
    name: str, at: int, reference: Reference, stack: ExitStack, *, names: int | None = None
) -> int:
    """Open a regular file with at most `names` names. It is looked at first, as opening a pipe may hang."""
    _check_regular(os.lstat(name, dir_fd=at), reference, names)
    descriptor = os.open(name, _READ, dir_fd=at)
    stack.callback(os.close, descriptor)
    _check_regular(os.fstat(descriptor), reference, names)
    return descriptor


def _check_regular(status: os.stat_result, reference: Reference, names: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refuse("not-regular", reference, "is not a regular file")
    if names is not None and status.st_nlink > names:
        raise _refuse(
            "hardlink",
            reference,
            f"has {status.st_nlink} names on this disk, so it may be a private file in disguise",
            "Make it a file of its own: cp FILE FILE.new && mv FILE.new FILE.",
        )


def _map(descriptor: int) -> Bytes:
    """The whole content of an open file."""
    size = os.fstat(descriptor).st_size
    if size < _MAPPED_FROM:
        with open(descriptor, "rb", closefd=False) as file:
            return np.frombuffer(file.read(), np.uint8)
    return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)

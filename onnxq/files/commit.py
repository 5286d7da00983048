"""Replacing a model so that a kill, a full disk or a power cut leaves the old one or the new one, whole.

Everything is written beside the target under names of our own and forced to disk. Only then do the new
files take their places, each by one rename: first the data, whose name comes from its content and so never
collides with data that the old model needs, then the model. The rename of the model is the moment of
change. What the old model alone needed is removed last; what a killed run left behind is removed by the
next one.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_CHUNK = 1 << 26


class Draft:
    """A file that is being written under a temporary name, and the SHA-256 of what is in it so far."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._descriptor: int | None = os.open(path, flags, 0o666)

    def write(self, data: memoryview | bytes) -> None:
        """Append `data`."""
        assert self._descriptor is not None
        view = memoryview(data)
        self._digest.update(view)
        self.size += len(view)
        while view:
            view = view[os.write(self._descriptor, view[:_CHUNK]) :]

    def align(self, boundary: int) -> None:
        """Append zeros up to a multiple of `boundary`."""
        self.write(bytes(-self.size % boundary))

    @property
    def digest(self) -> str:
        """SHA-256 in hex."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Force the content to disk."""
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        self.close()

    def close(self) -> None:
        """Give up the descriptor."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class Commit:
    """One replacement of the model at `target`: drafts, then `publish`. Savers to one folder take turns.

    Leaving the context without `publish` removes the drafts and changes nothing else.
    """

    def __init__(self, target: Path) -> None:
        self._folder = target.parent
        self._target = target
        self._drafts: list[Draft] = []
        self._lock = -1

    def __enter__(self) -> Self:
        self._lock = os.open(self._folder, os.O_RDONLY)
        _wait_for_lock(self._lock)
        # With the lock in hand, a draft that is still here belongs to nobody who is alive.
        self._remove(rf"\.{re.escape(self._target.name)}\.[0-9a-f]{{8}}\.onnxq-draft")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for draft in self._drafts:
            with suppress(OSError):
                draft.close()
            with suppress(OSError):
                os.unlink(draft.path)
        os.close(self._lock)

    def draft(self) -> Draft:
        """A new file beside the target, with the permissions of the file it will replace."""
        name = f".{self._target.name}.{secrets.token_hex(4)}.onnxq-draft"
        draft = Draft(self._folder / name)
        self._drafts.append(draft)
        with suppress(OSError):  # no file to take them from, or a file system that has none
            status = os.lstat(self._target)
            if stat.S_ISREG(status.st_mode):
                os.chmod(draft.path, stat.S_IMODE(status.st_mode))
        return draft

    def data_name(self, data: Draft) -> str:
        """The name under which finished data will be found, told by its content."""
        return f"{self._target.name}.{data.digest[:16]}.data"

    def publish(self, model: Draft, data: Draft | None) -> None:
        """Let finished drafts take their places, then remove data of earlier saves to this target."""
        name = self.data_name(data) if data is not None else ""
        if data is not None:
            self._rename(data, name)
        self._rename(model, self._target.name)
        self._remove(rf"{re.escape(self._target.name)}\.[0-9a-f]{{16}}\.data", keep=name)

    def _rename(self, draft: Draft, name: str) -> None:
        os.replace(draft.path, self._folder / name)
        self._drafts.remove(draft)
        os.fsync(self._lock)

    def _remove(self, pattern: str, keep: str = "") -> None:
        """Remove files of ours that nobody needs; what resists is left to the next save."""
        with suppress(OSError):
            for name in sorted(os.listdir(self._folder)):
                if re.fullmatch(pattern, name) and name != keep:
                    os.unlink(self._folder / name)


def _wait_for_lock(folder: int) -> None:
    """Take the folder's lock, which the kernel drops when its holder dies; some file systems have none."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(folder, fcntl.LOCK_EX)

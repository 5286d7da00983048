"""Statistics kept between runs, by the content of everything that they depend on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from onnxq.errors import CalibrationError, OutputError
from onnxq.files.folders import platform_cache
from onnxq.statistics import Statistic, Statistics

VERSION = 2
"""Raised when the meaning of statistics changes, so that no older result is taken for a current one."""

ENTRIES = 64
"""Results that are kept; the ones used longest ago go first."""

LARGEST = 64 * 2**20
"""Bytes of a result that is kept: packing more takes longer than gathering it again."""


class Cache:
    """A folder of results.

    It only ever saves work: an entry that is damaged counts as absent, a folder that cannot be written keeps
    nothing.

    Args:
        folder: Where; None for the platform's cache folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else platform_cache() / "statistics"

    def find(self, key: str) -> Statistics | None:
        """The result kept under `key`, if there is one."""
        path = self._path(key)
        try:
            found = Statistics.read(path)
        except CalibrationError:
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def keep(self, key: str, statistics: Statistics) -> None:
        """Keep a result under `key`, unless it is too large."""
        if statistics.nbytes > LARGEST:
            return
        with suppress(OSError, OutputError):
            self.folder.mkdir(parents=True, exist_ok=True)
            statistics.save(self._path(key))
            entries = sorted(self.folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in entries[ENTRIES:]:
                old.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def cache_key(model: str, data: str, kinds: Mapping[str, frozenset[Statistic]]) -> str:
    """Name of the result of a calibration: SHA-256 of all that it depends on.

    Args:
        model: Fingerprint of the model.
        data: Fingerprint of the data.
        kinds: What is wanted of each value.
    """
    state = hashlib.sha256(f"{VERSION}\0{model}\0{data}".encode())
    for name in sorted(kinds):
        state.update(f"\0{name}\0{','.join(sorted(kind.value for kind in kinds[name]))}".encode())
    return state.hexdigest()

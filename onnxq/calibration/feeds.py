"""Whole feeds of the model: a folder of ``.npz`` files, a list of dicts, or a function that yields dicts.

Each feed is one run, with the model's own shapes. Lengths may differ from feed to feed. A ``.npz`` file of
one sample may leave the batch axis out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.calibration.inputs import Array, Feeds, InputSpec, fixed_batch
from onnxq.calibration.npz import npz_members, whole_arrays
from onnxq.calibration.source import DataOptions, DataSource, Item, digest_of, fit_feeds, make_source
from onnxq.errors import CalibrationError
from onnxq.lookup import find_function


@dataclass(frozen=True)
class FolderReader:
    """A folder of ``.npz`` files, by name, a feed each."""

    origin: str
    files: tuple[Path, ...]
    specs: tuple[InputSpec, ...]
    preparation: str = ""
    uniform: bool = False

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """The content of each file, one in memory at a time."""
        ranks = {spec.name: spec.rank for spec in self.specs}
        for index in indices:
            arrays = whole_arrays(self.files[index], set(ranks))
            flat = arrays and all(ranks[name] == array.ndim + 1 for name, array in arrays.items())
            yield {name: array[np.newaxis] for name, array in arrays.items()} if flat else arrays

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The only item: files are not put together, their lengths may differ."""
        return items[0]


@dataclass(frozen=True)
class FeedReader:
    """Something that gives feeds, from the start each time it is asked.

    Attributes:
        origin: What to call it.
        produce: Starts it over.
        digests: What it gave the first time; giving anything else later is an error. Empty the first time.
    """

    origin: str
    produce: Callable[[], Iterable[Mapping[str, Any]]] = field(repr=False)
    digests: tuple[bytes, ...] = field(default=(), repr=False)
    preparation: str = ""
    uniform: bool = False

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Feeds by ascending index, one in memory at a time."""
        wanted = iter(indices)
        target = next(wanted, None)
        if target is None:
            return
        for index, arrays in enumerate(_start(self.produce, self.origin)):
            if index != target:
                continue
            if self.digests and digest_of(arrays) != self.digests[index]:
                raise self._changed()
            yield arrays
            del arrays
            target = next(wanted, None)
            if target is None:
                return
        if self.digests:
            raise self._changed()

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The only item: a feed is a run."""
        return items[0]

    def _changed(self) -> CalibrationError:
        return CalibrationError(
            f"{self.origin} does not give the same data each time it is read",
            hint="calibration reads data more than once; fix the order and the seed",
            slug="unstable-data",
        )


def open_folder(
    folder: Path, files: Sequence[Path], specs: tuple[InputSpec, ...], options: DataOptions
) -> DataSource:
    """A source over ``.npz`` files, in the order of their names.

    Raises:
        CalibrationError: One of them is damaged or does not fit the model.
    """
    for file in files:
        npz_members(file)
    chosen = tuple(sorted(files)[: options.limit])
    reader = FolderReader(str(folder), chosen, specs)
    items = []
    for file, arrays in zip(chosen, reader.read(range(len(chosen))), strict=True):
        items.append(_item(arrays, specs, str(file)))
    return make_source(reader, specs, items, options, batch_size=1)


def open_function(name: str, specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    """A source over the feeds that ``module:function`` yields.

    The module is looked for in the working directory too. It is code of the user's own choice and is run.

    Raises:
        CalibrationError: There is no such function, it fails, or what it yields does not fit the model.
    """
    try:
        function = find_function(name)
    except ImportError as error:
        raise CalibrationError(
            f"cannot find {name}: {error}",
            hint="name a function without arguments that yields a dict of arrays for each run, "
            "in a module that is importable from the working directory",
            slug="no-function",
        ) from error
    return open_feeds(function, specs, options, origin=name)


def open_feeds(
    feeds: Iterable[Mapping[str, Any]] | Callable[[], Iterable[Mapping[str, Any]]],
    specs: tuple[InputSpec, ...],
    options: DataOptions,
    *,
    origin: str = "calibration feeds",
) -> DataSource:
    """A source over feeds in memory or from a function without arguments.

    They are read once here, to be checked, counted and hashed, and again by whoever uses the source.

    Raises:
        CalibrationError: They can be read only once, or one does not fit the model.
    """
    if isinstance(feeds, Iterator):
        raise CalibrationError(
            f"{origin} can be read only once",
            hint="give a list, or a function that starts a new generator each time it is called",
            slug="one-shot-data",
        )
    produce = feeds if callable(feeds) else lambda: feeds
    items = [
        _item(feed, specs, f"{origin}, feed {index}")
        for index, feed in enumerate(_start(produce, origin, options.limit))
    ]
    reader = FeedReader(origin, produce, tuple(item.digest for item in items))
    return make_source(reader, specs, items, options, batch_size=1)


def _start(
    produce: Callable[[], Iterable[Mapping[str, Any]]], origin: str, limit: int | None = None
) -> Iterator[dict[str, Array]]:
    """The feeds, from the first; whatever the user's code raises becomes an error that names it."""
    try:
        for index, feed in enumerate(islice(produce(), limit)):
            yield _arrays_of(feed, f"{origin}, feed {index}")
    except CalibrationError:
        raise
    except Exception as error:  # code of the user's: anything can come
        raise CalibrationError(
            f"{origin} failed: {type(error).__name__}: {error}",
            hint="it must yield a dict of arrays by input name for each run",
            slug="function-failed",
        ) from error


def _arrays_of(feed: object, where: str) -> dict[str, Array]:
    if not isinstance(feed, Mapping):
        raise CalibrationError(
            f"{where}: a {type(feed).__name__}, not a dict of arrays by input name",
            hint="wrap it: {'name of the input': array}",
            slug="not-a-feed",
        )
    return {str(name): np.asarray(array) for name, array in feed.items()}


def _item(arrays: Mapping[str, Any], specs: tuple[InputSpec, ...], where: str) -> Item:
    fitted = fit_feeds(arrays, specs, where)
    return Item(
        digest_of({name: np.asarray(array) for name, array in arrays.items()}), _samples(fitted, specs)
    )


def _samples(feeds: Feeds, specs: tuple[InputSpec, ...]) -> int:
    """Samples in a feed: its first axis where the model leaves that open or agrees on it, else one."""
    for spec in specs:
        if feeds[spec.name].ndim and (spec.shape is None or not isinstance(spec.shape[0], int)):
            return len(feeds[spec.name])
    return fixed_batch(specs) or 1

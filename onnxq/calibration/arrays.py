"""Arrays by input name, first axis samples: an ``.npz`` file, or a mapping in memory.

An ``.npz`` file is read as a stream, a sample at a time, so that its size does not matter. An array that all
samples share (a scalar, or one that fits its input as it is and does not have as many rows as the others)
goes into each run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.calibration.inputs import Array, InputSpec, describe, fixed_batch, require_names
from onnxq.calibration.npz import npz_members, read_rows, whole_arrays
from onnxq.calibration.source import DataOptions, DataSource, digest_of, make_source, scan
from onnxq.errors import CalibrationError


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
class NpzReader:
    """Arrays of an ``.npz`` file, read row by row."""

    path: Path
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
        yield from read_rows(self.path, self.layout.rows, indices)

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Samples put together, and what they share."""
        return {**stacked(items, batched=self.layout.batched), **self.shared}


def open_npz(path: Path, specs: tuple[InputSpec, ...], options: DataOptions) -> DataSource:
    """A source over an ``.npz`` file.

    Raises:
        CalibrationError: It is damaged, holds objects, or its arrays do not fit the model.
    """
    layout = layout_of(npz_members(path), specs, str(path))
    shared = whole_arrays(path, layout.shared)
    preparation = digest_of(shared).hex() if shared else ""
    return _source(NpzReader(path, layout, shared, preparation), specs, options)


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

"""Whole values on a few samples, each of which is run on its own.

A value need not have a batch axis (a rotary table, a mask that is computed once), so it is not cut out of a
larger run: the model is run on one sample, and what it computes is what is shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.calibration.inputs import Feeds, is_float
from onnxq.calibration.source import Batch, DataSource, fit_feeds
from onnxq.calibration.taps import find_targets, open_tapped
from onnxq.statistics import Examples

Array = npt.NDArray[Any]


def gather_examples(
    model: ir.Model, source: DataSource, names: Collection[str], *, threads: int = 0
) -> tuple[dict[str, Examples], dict[str, str]]:
    """What values of a model are on a few samples, the same ones for all values.

    A model that fixes its batch size is run on whole batches, and a sample is cut out of the values that
    have the batch for their first axis.

    Args:
        model: The model; not changed.
        source: Data for it.
        names: Values of any element type but text.
        threads: Threads of the runtime; 0 leaves it to the runtime.

    Returns:
        Examples by name; for what a run cannot show, the reason by name.
    """
    targets = find_targets(model, names, floats=False)
    session = open_tapped(model, targets.computed, threads) if targets.computed else None
    skipped = dict(targets.skipped)
    found: dict[str, dict[int, Array]] = {name: {} for name in (*targets.inputs, *targets.computed)}
    for key, feeds, cut in _chosen(source):
        values = session.run(feeds, list(targets.computed)) if session is not None else {}
        values.update({name: feeds[name] for name in targets.inputs})
        for name, value in values.items():
            array = np.asarray(value)
            if array.dtype.hasobject or array.dtype.kind in "US":
                skipped[name] = "holds text"
                continue
            found[name][key] = _storable(_cut(array, *cut) if cut else array)
    shown = {name: _examples(arrays) for name, arrays in found.items() if name not in skipped}
    return shown, skipped


def _chosen(source: DataSource) -> Iterator[tuple[int, Feeds, tuple[int, int] | None]]:
    """Key and feeds of each chosen sample, and which of how many samples it is where it has company."""
    places: dict[int, tuple[int, int]] = {}
    for index in source.indices:
        for row in range(source.items[index].samples):
            places.setdefault(_key(source, index, row), (index, row))
    for key in sorted(places)[: Examples.CAP]:
        index, row = places[key]
        if source.whole_batches and source.batch_size > 1:
            yield key, _repeated(source, index), (0, source.batch_size)
            continue
        (batch,) = replace(source, batch_size=1, whole_batches=False).select([index]).batches()
        yield key, *_alone(batch, row, source)


def _repeated(source: DataSource, index: int) -> Feeds:
    """A batch of the size that the model fixes, of one sample again and again."""
    (item,) = source.reader.read([index])
    return fit_feeds(source.reader.collate([item] * source.batch_size), source.specs, source.reader.origin)


def _alone(batch: Batch, row: int, source: DataSource) -> tuple[Feeds, tuple[int, int] | None]:
    """The feeds of one sample of a feed that may hold several."""
    if batch.samples == 1:
        return batch.feeds, None
    batched = {
        spec.name
        for spec in source.specs
        if batch.feeds[spec.name].ndim and len(batch.feeds[spec.name]) == batch.samples
    }
    if any(spec.name in batched and spec.shape and isinstance(spec.shape[0], int) for spec in source.specs):
        return batch.feeds, (row, batch.samples)
    cut = {name: array[row : row + 1] if name in batched else array for name, array in batch.feeds.items()}
    return cut, None


def _key(source: DataSource, index: int, row: int) -> int:
    state = hashlib.blake2b(source.items[index].digest + row.to_bytes(4, "big"), digest_size=8)
    return int.from_bytes(state.digest(), "big")


def _cut(array: Array, row: int, samples: int) -> Array:
    return array[row : row + 1] if array.ndim and len(array) == samples else array


def _storable(array: Array) -> Array:
    """`array` in an element type of numpy's own, so that it can be kept in a file."""
    if array.dtype.isbuiltin == 1:
        return array.copy()
    return array.astype(np.float32 if is_float(array.dtype) else np.int32)


def _examples(arrays: dict[int, Array]) -> Examples:
    keys = sorted(arrays)
    return Examples(tuple(arrays[key] for key in keys), np.array(keys, dtype=np.uint64))

"""A data set that fits a model: read lazily, in batches, any number of times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from onnxq.calibration.inputs import Array, Feeds, InputSpec, check_symbols, fit, require_names
from onnxq.errors import CalibrationError


@dataclass(frozen=True)
class DataOptions:
    """How data is read. An option that does not concern the kind of data at hand is not looked at.

    Attributes:
        batch_size: Samples in one run; a batch size that the model fixes goes before it.
        limit: Read only the first so many samples; None for all.
        tokenizer: A Hugging Face ``tokenizer.json``, for text.
        max_length: Tokens at which text is cut; also the size of unknown sequence axes of random data.
        image_size: Height and width in pixels; None to take what the model fixes.
        mean: Per channel, subtracted from pixels scaled to 0..1.
        std: Per channel, divides what is left.
        samples: Number of samples of random data.
        seed: Seed of random data.
        sizes: Sizes of symbolic axes of random data, by symbol.
    """

    batch_size: int = 8
    limit: int | None = None
    tokenizer: str | Path | None = None
    max_length: int = 128
    image_size: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    samples: int = 32
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)


class Reader(Protocol):
    """Items of a data set, in a fixed order: single samples, or whole feeds of several."""

    @property
    def origin(self) -> str:
        """Where the data is from, for messages."""

    @property
    def preparation(self) -> str:
        """Everything besides the items that decides what they become, for fingerprints."""

    @property
    def uniform(self) -> bool:
        """Whether all samples have one shape."""

    def read(self, indices: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Items by ascending index, one in memory at a time."""

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """One feed of the model, from consecutive items."""


@dataclass(frozen=True)
class Item:
    """What is known of an item without reading it again.

    Attributes:
        digest: Hash of its content.
        samples: Samples in it.
    """

    digest: bytes
    samples: int = 1


@dataclass(frozen=True)
class Batch:
    """What one run of the model is given.

    Attributes:
        feeds: An array for each input.
        samples: Samples in it: the size of its batch axis.
    """

    feeds: Feeds
    samples: int


@dataclass(frozen=True)
class DataSource:
    """Data that fits a model. Iterating gives feeds: an array for each input, checked, batch axis in front.

    Made by `open_data`. Nothing is kept between two steps of an iteration, so memory does not depend on how
    many samples there are; it may be iterated any number of times and gives the same each time.

    Attributes:
        reader: Where items come from.
        specs: The inputs they are for.
        items: Digest and size of every item of the reader.
        indices: Which of them belong to this source, ascending.
        batch_size: Items that are put together for one run.
        whole_batches: Whether the model fixes the batch size, so that a remainder cannot be run.
    """

    reader: Reader
    specs: tuple[InputSpec, ...]
    items: tuple[Item, ...] = field(repr=False)
    indices: tuple[int, ...] = field(repr=False)
    batch_size: int = 1
    whole_batches: bool = False

    def __iter__(self) -> Iterator[Feeds]:
        return (batch.feeds for batch in self.batches())

    def __len__(self) -> int:
        """Samples that an iteration delivers."""
        return sum(self.items[index].samples for index in self._used)

    @property
    def left_out(self) -> int:
        """Samples that do not fill a batch of the size that the model fixes."""
        return sum(self.items[index].samples for index in self.indices) - len(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, in hex: of the items in order and of everything that shapes them."""
        parts = [self.reader.preparation.encode(), *(self.items[index].digest for index in self._used)]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def batches(self) -> Iterator[Batch]:
        """Feeds with the number of samples in each.

        Raises:
            CalibrationError: Data that cannot be read any more, or does not fit the model.
        """
        indices = iter(self._used)
        items = self.reader.read(self._used)
        while chosen := list(islice(indices, self.batch_size)):
            feeds = self.reader.collate([next(items) for _ in chosen])
            where = f"{self.reader.origin}, sample {_span(chosen)}"
            yield Batch(
                fit_feeds(feeds, self.specs, where), sum(self.items[index].samples for index in chosen)
            )
        for _ in items:  # lets a reader that checks itself at its end do so
            pass

    def select(self, indices: Sequence[int]) -> DataSource:
        """A view of some of the items, by their index in the reader."""
        return replace(self, indices=tuple(sorted(indices)))

    @property
    def _used(self) -> tuple[int, ...]:
        count = len(self.indices)
        return self.indices[: count - count % self.batch_size] if self.whole_batches else self.indices


class Split(NamedTuple):
    """Calibration data, and data that calibration does not see."""

    calibration: DataSource
    held_out: DataSource

    @property
    def separate(self) -> bool:
        """False if the data could not be divided, so that both are the same: figures on it flatter."""
        return self.calibration.indices != self.held_out.indices


def split(source: DataSource, *, share: float = 0.25) -> Split:
    """Divide a source by a fixed rule: the items with the least content hashes are held out.

    The rule looks at content alone. It does not depend on the order of the items, and copies of one item
    always fall on one side, so that nothing that calibration saw is held out. At least one distinct item is
    held out; if there is only one, or a model that fixes its batch size leaves either side without a batch,
    both sides are the whole source and `Split.separate` is False.

    Args:
        source: What to divide.
        share: Part of the distinct items to hold out.
    """
    digests = sorted({hashlib.sha256(source.items[index].digest).digest() for index in source.indices})
    if len(digests) < 2:
        return Split(source, source)
    count = min(max(round(share * len(digests)), 1), len(digests) - 1)
    held = set(digests[:count])
    chosen = [
        index for index in source.indices if hashlib.sha256(source.items[index].digest).digest() in held
    ]
    rest = source.select(sorted(set(source.indices) - set(chosen)))
    held_out = source.select(chosen)
    return Split(rest, held_out) if len(rest) and len(held_out) else Split(source, source)


def make_source(
    reader: Reader,
    specs: tuple[InputSpec, ...],
    items: Sequence[Item],
    options: DataOptions,
    *,
    batch_size: int,
    whole_batches: bool = False,
) -> DataSource:
    """A source over a reader whose items have been looked at.

    Raises:
        CalibrationError: There is nothing in it, or not enough for one batch of the size that the model
            fixes.
    """
    if not items:
        raise CalibrationError(
            f"{reader.origin} is empty", hint="give at least one sample", slug="empty-source"
        )
    indices = tuple(range(len(items)))[: options.limit]
    source = DataSource(reader, specs, tuple(items), indices, batch_size, whole_batches)
    if not len(source):
        raise CalibrationError(
            f"{reader.origin} gives {len(indices)} samples, and the model takes {batch_size} at a time",
            hint=f"give at least {batch_size} samples",
            slug="too-few-samples",
        )
    return source


def fit_feeds(feeds: Mapping[str, Any], specs: tuple[InputSpec, ...], where: str) -> Feeds:
    """The arrays of one run, checked and converted, in the model's order.

    Raises:
        CalibrationError: Something is missing or does not fit.
    """
    given = {name: np.asarray(array) for name, array in feeds.items()}
    require_names(given, specs, where)
    fitted: Feeds = {spec.name: fit(given[spec.name], spec, where) for spec in specs}
    check_symbols(fitted, specs, where)
    return fitted


def scan(
    reader: Reader, count: int, specs: tuple[InputSpec, ...], *, whole_batch: int | None = None
) -> list[Item]:
    """Read everything once: check that it fits, and hash it.

    Args:
        reader: Whose items are single samples.
        count: How many there are.
        specs: What they should fit.
        whole_batch: The batch size that the model fixes, if it does.

    Raises:
        CalibrationError: The first item that does not fit.
    """
    items = []
    for index, item in enumerate(reader.read(range(count))):
        arrays = {name: np.asarray(array) for name, array in item.items()}
        fit_feeds(reader.collate([arrays] * (whole_batch or 1)), specs, f"{reader.origin}, sample {index}")
        items.append(Item(digest_of(arrays)))
    return items


def digest_of(arrays: Mapping[str, Array]) -> bytes:
    """Hash of arrays by name: names, element types, shapes and contents."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        state.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        text = array.dtype.kind in "OU"
        state.update("\0".join(map(str, array.reshape(-1))).encode() if text else array.tobytes())
    return state.digest()


def _span(indices: Sequence[int]) -> str:
    return str(indices[0]) if len(indices) == 1 else f"{indices[0]} to {indices[-1]}"

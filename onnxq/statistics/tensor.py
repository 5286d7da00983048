"""Everything known of one value, and of all values of a model."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from onnxq.errors import CalibrationError
from onnxq.statistics.examples import Examples
from onnxq.statistics.extremes import AverageExtremes, ChannelExtremes, TokenExtremes
from onnxq.statistics.histogram import Histogram
from onnxq.statistics.moments import RawMoments, SecondMoments
from onnxq.statistics.rows import Rows
from onnxq.statistics.samples import SampleExtremes


class Statistic(enum.Enum):
    """A kind of statistic that a pass can ask for."""

    CHANNEL_EXTREMES = "channel-extremes"
    TOKEN_EXTREMES = "token-extremes"  # noqa: S105 - a token of a sequence
    HISTOGRAM = "histogram"
    SECOND_MOMENTS = "second-moments"
    RAW_MOMENTS = "raw-moments"
    AVERAGE_EXTREMES = "average-extremes"
    SAMPLE_EXTREMES = "sample-extremes"
    ROWS = "rows"
    EXAMPLES = "examples"
    """The only kind that values of any element type have, and that knows no tokens: whole values."""


@dataclass(frozen=True)
class TensorStatistics:
    """Everything known of one value. A field is None where that kind was not asked for.

    Attributes:
        count: Tokens seen; 0 of a value of which only examples were kept.
        channel: Extremes of each channel.
        token: Extremes of each token.
        histogram: Counts of all elements.
        moments: Gram matrix and sum of the tokens.
        raw: Moments of all elements, for kurtosis and the infinity norm.
        average: Extremes of a sample, on average.
        rows: Some of the tokens themselves.
        samples: Extremes of each channel in each of some samples.
        examples: The whole value on a few samples.
    """

    count: int
    channel: ChannelExtremes | None = None
    token: TokenExtremes | None = None
    histogram: Histogram | None = None
    moments: SecondMoments | None = None
    raw: RawMoments | None = None
    average: AverageExtremes | None = None
    rows: Rows | None = None
    examples: Examples | None = None
    samples: SampleExtremes | None = None

    @classmethod
    def of(
        cls,
        tokens: npt.NDArray[np.floating],
        wanted: Collection[Statistic] = tuple(Statistic),
        *,
        sample: int = 0,
    ) -> TensorStatistics:
        """What one sample tells: every kind that is wanted but examples, which tokens do not make.

        Args:
            tokens: Finite float activations [T, C] of one sample, without its padding.
            wanted: Kinds of statistic to compute.
            sample: A hash of the sample's content; see `TokenExtremes`.
        """
        return cls(
            len(tokens),
            ChannelExtremes.of(tokens) if Statistic.CHANNEL_EXTREMES in wanted else None,
            TokenExtremes.of(tokens, sample) if Statistic.TOKEN_EXTREMES in wanted else None,
            Histogram.of(tokens) if Statistic.HISTOGRAM in wanted else None,
            SecondMoments.of(tokens) if Statistic.SECOND_MOMENTS in wanted else None,
            RawMoments.of(tokens) if Statistic.RAW_MOMENTS in wanted else None,
            AverageExtremes.of(tokens) if Statistic.AVERAGE_EXTREMES in wanted else None,
            Rows.of(tokens, sample) if Statistic.ROWS in wanted else None,
            samples=SampleExtremes.of(tokens, sample) if Statistic.SAMPLE_EXTREMES in wanted else None,
        )

    @property
    def low(self) -> float:
        """Least element, from whichever statistic holds it exactly; NaN where none does."""
        return self._bounds()[0]

    @property
    def high(self) -> float:
        """Greatest element, from whichever statistic holds it exactly; NaN where none does."""
        return self._bounds()[1]

    def merge(self, other: TensorStatistics) -> TensorStatistics:
        """What both tell. A kind that only one side has is dropped: it would speak for a part of the data."""
        return TensorStatistics(
            self.count + other.count,
            _merged(self.channel, other.channel),
            _merged(self.token, other.token),
            _merged(self.histogram, other.histogram),
            _merged(self.moments, other.moments),
            _merged(self.raw, other.raw),
            _merged(self.average, other.average),
            _merged(self.rows, other.rows),
            _merged(self.examples, other.examples),
            _merged(self.samples, other.samples),
        )

    def _bounds(self) -> tuple[float, float]:
        if self.histogram is not None:
            return self.histogram.low, self.histogram.high
        if self.channel is not None and self.channel.low.size:
            return float(self.channel.low.min()), float(self.channel.high.max())
        if self.token is not None and self.token.complete and self.token.low.size:
            return float(self.token.low.min()), float(self.token.high.max())
        return float("nan"), float("nan")


@dataclass(frozen=True)
class Statistics(Mapping[str, TensorStatistics]):
    """Statistics by value name.

    Attributes:
        tensors: What is known of each value.
        skipped: Values that were asked for and could not be observed, and why.
        model: Fingerprint of the model that was run; "" if unknown.
        data: Fingerprints of the data it was run on.
    """

    tensors: Mapping[str, TensorStatistics] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    data: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> TensorStatistics:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        from onnxq.statistics.store import bytes_of  # the store knows this class

        return bytes_of(self.tensors)

    def merge(self, other: Statistics) -> Statistics:
        """What both tell, on the samples of both; a value that only one side has stays as it is.

        Raises:
            CalibrationError: If they belong to two models.
        """
        if self.model and other.model and self.model != other.model:
            raise CalibrationError(
                "statistics of two different models do not merge",
                hint="calibrate the same model on both data sets",
                slug="other-model",
            )
        tensors = dict(self.tensors)
        for name, found in other.tensors.items():
            tensors[name] = tensors[name].merge(found) if name in tensors else found
        skipped = {**self.skipped, **other.skipped}
        return Statistics(tensors, skipped, self.model or other.model, self.data | other.data)

    def without(self, kinds: Collection[Statistic]) -> Statistics:
        """The same less these kinds."""
        gone: dict[str, Any] = dict.fromkeys(_FIELDS[kind] for kind in kinds)
        tensors = {name: replace(seen, **gone) for name, seen in self.tensors.items()}
        return replace(self, tensors=tensors)

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file: whole or not at all, without pickles, the same bytes for the same content.

        Raises:
            OutputError: If it could not be written.
        """
        from onnxq.statistics.store import write  # the store knows this class

        write(self, Path(path))

    @classmethod
    def read(cls, path: str | Path) -> Statistics:
        """Statistics as `save` wrote them.

        Raises:
            CalibrationError: If there is no such file or it is not one of ours.
        """
        from onnxq.statistics.store import read

        return read(Path(path))


_FIELDS = {
    Statistic.CHANNEL_EXTREMES: "channel",
    Statistic.TOKEN_EXTREMES: "token",
    Statistic.HISTOGRAM: "histogram",
    Statistic.SECOND_MOMENTS: "moments",
    Statistic.RAW_MOMENTS: "raw",
    Statistic.AVERAGE_EXTREMES: "average",
    Statistic.SAMPLE_EXTREMES: "samples",
    Statistic.ROWS: "rows",
    Statistic.EXAMPLES: "examples",
}
"""Where `TensorStatistics` has each kind."""


class _Mergeable(Protocol):
    def merge(self, other: Self) -> Self: ...


_M = TypeVar("_M", bound=_Mergeable)


def _merged(one: _M | None, two: _M | None) -> _M | None:
    return one.merge(two) if one is not None and two is not None else None

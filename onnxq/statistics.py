"""What calibration remembers of a tensor: small, mergeable, and the same whatever the order of the samples.

The data only. How it is gathered is `onnxq.calibration`; which values to gather it for is said by each pass.
Channels are the last axis of a value; everything in front of it is tokens. Padding is never counted.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Statistic(enum.Enum):
    """A kind of statistic that a pass can ask for."""

    CHANNEL_EXTREMES = "channel-extremes"
    TOKEN_EXTREMES = "token-extremes"
    HISTOGRAM = "histogram"
    SECOND_MOMENTS = "second-moments"


@dataclass(frozen=True)
class TensorStatistics:
    """Everything known of one value. A field is None where that kind was not asked for."""

    placeholder: None = None


@dataclass(frozen=True)
class Statistics(Mapping[str, TensorStatistics]):
    """Statistics by value name."""

    tensors: Mapping[str, TensorStatistics] = field(default_factory=dict)

    def __getitem__(self, name: str) -> TensorStatistics:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

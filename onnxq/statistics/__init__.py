"""What calibration remembers of a tensor: small, mergeable, and the same whatever the order of the samples.

The data only. How it is gathered is `onnxq.calibration`; which values to gather it for is said by each pass.
Channels are the last axis of a value; everything in front of it is tokens. Padding is never counted.

Merging is exact: it commutes and associates bit for bit, so samples may come in any order and in any number
of parts; sums of second moments alone are rounded in float64. `TensorStatistics.of` observes one array;
`merge` joins two observations.
"""

from onnxq.statistics.exact_sum import ExactSum
from onnxq.statistics.examples import Examples
from onnxq.statistics.extremes import TOKEN_CAP, AverageExtremes, ChannelExtremes, TokenExtremes
from onnxq.statistics.histogram import BINS, Histogram
from onnxq.statistics.moments import RawMoments, SecondMoments
from onnxq.statistics.rows import Rows
from onnxq.statistics.samples import SampleExtremes
from onnxq.statistics.tensor import Statistic, Statistics, TensorStatistics

__all__ = [
    "BINS",
    "TOKEN_CAP",
    "AverageExtremes",
    "ChannelExtremes",
    "ExactSum",
    "Examples",
    "Histogram",
    "RawMoments",
    "Rows",
    "SampleExtremes",
    "SecondMoments",
    "Statistic",
    "Statistics",
    "TensorStatistics",
    "TokenExtremes",
]

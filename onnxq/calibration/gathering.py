"""The statistics of one value while samples come in."""

from __future__ import annotations

from dataclasses import replace

from onnxq.calibration.sums import MomentSum
from onnxq.calibration.taps import Sighting
from onnxq.statistics import TOKEN_CAP, Rows, Statistic, TensorStatistics, TokenExtremes

MASKED = "holds constants of an attention mask, which are no data"
_RAGGED = "has a last axis of varying length, so it has no channels"

_BY_CHANNEL = frozenset(
    {Statistic.CHANNEL_EXTREMES, Statistic.SECOND_MOMENTS, Statistic.ROWS, Statistic.SAMPLE_EXTREMES}
)
_BY_PART = frozenset({Statistic.TOKEN_EXTREMES, Statistic.ROWS, Statistic.SECOND_MOMENTS, Statistic.EXAMPLES})
"""Kinds that are merged several samples at a time, or that come from runs of their own."""


class Gathering:
    """What has been seen of one value so far: a running total, and a few tokens not sorted in yet.

    Attributes:
        kinds: Kinds of statistic that are gathered.
        trouble: Why some or all of them cannot be; "" if they can.
    """

    def __init__(self, kinds: frozenset[Statistic]) -> None:
        self.kinds = kinds
        self.trouble = ""
        self._total: TensorStatistics | None = None
        self._tokens: list[TokenExtremes] = []
        self._rows: list[Rows] = []
        self._moments: MomentSum | None = None
        self._waiting = 0
        self._channels = 0

    def add(self, sighting: Sighting) -> None:
        """Count in what one sample showed."""
        if sighting.masked:
            self.trouble = MASKED
        if self.trouble == MASKED:
            return
        channels = sighting.tokens.shape[1]
        if self._total is not None and channels != self._channels:
            self._drop_channels()
        self._channels = channels
        seen = TensorStatistics.of(sighting.tokens, self.kinds - _BY_PART, sample=sighting.key)
        self._total = seen if self._total is None else self._total.merge(seen)
        if Statistic.SECOND_MOMENTS in self.kinds:
            self._moments = self._moments or MomentSum(channels, sighting.tokens.dtype)
            self._moments.add(sighting.tokens)
        self._keep_tokens(sighting)

    def result(self) -> TensorStatistics:
        """All that was seen; nothing may be added after."""
        self._settle()
        return replace(
            self._total or TensorStatistics(0),
            token=self._tokens[0] if self._tokens else None,
            rows=self._rows[0] if self._rows else None,
            moments=self._moments.result() if self._moments else None,
        )

    def _keep_tokens(self, sighting: Sighting) -> None:
        if Statistic.TOKEN_EXTREMES in self.kinds:
            self._tokens.append(TokenExtremes.of(sighting.tokens, sighting.key))
        if Statistic.ROWS in self.kinds:
            self._rows.append(Rows.of(sighting.tokens, sighting.key))
        self._waiting += len(sighting.tokens)
        if self._waiting >= (Rows.CAP if self._rows else TOKEN_CAP):
            self._settle()

    def _settle(self) -> None:
        """Sort in what waits, so that no more is kept than a cap allows."""
        self._tokens = [TokenExtremes.joined(self._tokens)] if self._tokens else []
        self._rows = [Rows.joined(self._rows)] if self._rows else []
        self._waiting = 0

    def _drop_channels(self) -> None:
        if self.kinds & _BY_CHANNEL and self._total is not None:
            self.trouble = _RAGGED
            self.kinds -= _BY_CHANNEL
            self._total = replace(self._total, channel=None, samples=None)
            self._rows, self._moments = [], None

"""The original of a trial: each of its sessions is opened once, and each question is put to it once.

Opening is what a trial of a large model pays for, in seconds and in copies of its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.errors import BackendError
from onnxq.verify.feeds import Feed
from onnxq.verify.hosts import Host, Running
from onnxq.verify.shaken import shaken

Outputs = Mapping[str, Any]
SHAKES = 3
"""Copies with other constants: how far one of them happens to move an output varies by a factor of ten."""


class Reference:
    """The original, as often as a trial needs it.

    Args:
        model: The original.
        host: What opens it.

    Attributes:
        feeds: What it will be asked about, so that a copy can be asked about all at once.
    """

    def __init__(self, model: ir.Model, host: Host) -> None:
        self.model, self._host = model, host
        self.feeds: Sequence[Feed] = ()
        self._plain: Running | None = None
        self._fast: Running | None = None
        self._refused = False
        self._nudged: dict[int, tuple[Feed, Outputs]] = {}
        self._optimised: dict[int, tuple[Feed, Outputs]] = {}
        self._shaken: dict[int, tuple[Feed, list[Outputs]]] = {}

    @property
    def plain(self) -> Running:
        """The original with the runtime's optimisations off.

        Raises:
            BackendError: The runtime refuses it.
        """
        if self._plain is None:
            self._plain = self._host.open(self.model, "disabled")
        return self._plain

    def nudged(self, feed: Feed, usual: Mapping[str, float]) -> Outputs:
        """Its outputs on inputs moved by one rounding of their largest or `usual` magnitude."""
        if id(feed) not in self._nudged:  # the feed is kept, so that its id is not given to another
            self._nudged[id(feed)] = (feed, self.plain.run(_nudged(feed, usual)))
        return self._nudged[id(feed)][1]

    def optimised(self, feed: Feed) -> Outputs | None:
        """Its outputs with the runtime's optimisations on; None if it fails with them."""
        if id(feed) in self._optimised:
            return self._optimised[id(feed)][1]
        if self._refused:
            return None
        try:
            if self._fast is None:
                self._fast = self._host.open(self.model, "all")
            outputs = self._fast.run(feed.arrays)
        except BackendError:
            self._refused, self._fast = True, None
            return None
        self._optimised[id(feed)] = (feed, outputs)
        return outputs

    def shaken(self, feed: Feed) -> Sequence[Outputs]:
        """Its outputs with its smaller constants moved by one rounding, a few times; none if it has none."""
        if id(feed) not in self._shaken:
            self._shake([feed, *(each for each in self.feeds if each is not feed)])
        return self._shaken[id(feed)][1]

    def _shake(self, feeds: Sequence[Feed]) -> None:
        """Put all feeds to one shaken copy after the other, so that each is opened once and closed again."""
        for feed in feeds:
            self._shaken[id(feed)] = (feed, [])
        for seed in range(SHAKES):
            model = shaken(self.model, seed)
            with contextlib.suppress(BackendError):
                self._ask(model, feeds)

    def _ask(self, model: ir.Model | None, feeds: Sequence[Feed]) -> None:
        running = None if model is None else self._host.open(model, "disabled")
        if running is not None:
            for feed in feeds:
                self._shaken[id(feed)][1].append(running.run(feed.arrays))

    def close(self) -> None:
        """Let go of the sessions; they open again when they are needed."""
        self._plain = self._fast = None


def _nudged(feed: Feed, usual: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The feed with floats moved up and down by turns, by one rounding of the largest or usual magnitude."""
    nudged = dict(feed.arrays)
    for name, array in feed.arrays.items():
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            largest = float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
            step = float(np.finfo(array.dtype).eps) * max(largest, usual.get(name, 1.0))
            signs = np.where(np.arange(array.size).reshape(array.shape) % 2, -step, step)
            nudged[name] = (array + signs).astype(array.dtype)
    return nudged

"""Sums of products over a stream of tokens, added up in place.

Tokens wait until there are `BLOCK` of them: a product of few rows spends its time on the result. Moments of
float32 tokens are multiplied as they are, block by block, and added up in float64: 2.5 times as fast, and
wrong by about 2e-7 of the diagonal, which is nothing to a rounding that is damped by a hundredth of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.statistics import SecondMoments
from onnxq.statistics.moments import of_one_size

Floats = npt.NDArray[np.floating[Any]]

BLOCK = 512
"""Tokens that wait for each other: 3 MiB of them at 1536 channels, next to a result of 18."""


class Stack:
    """Rows that fill a block, which is handed over when it is full."""

    def __init__(self, channels: int, dtype: np.dtype[Any]) -> None:
        self._rows = np.empty((BLOCK, channels), dtype=dtype)
        self._filled = 0

    def room(self) -> int:
        """Rows that still fit."""
        return BLOCK - self._filled

    def put(self, rows: Floats) -> None:
        """Copy rows in; there must be room for them."""
        self._rows[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def take(self) -> Floats:
        """All rows, as they lie there until more are put; the block is empty then."""
        rows = self._rows[: self._filled]
        self._filled = 0
        return rows


class MomentSum:
    """`SecondMoments` of a stream of tokens."""

    def __init__(self, channels: int, dtype: np.dtype[Any]) -> None:
        self._stack = Stack(channels, dtype)
        self._gram = np.zeros((channels, channels))
        self._total = np.zeros(channels)
        self._count = 0

    def add(self, tokens: Floats) -> None:
        """Count tokens [T, C] in."""
        while len(tokens):
            room = self._stack.room()
            self._stack.put(tokens[:room])
            tokens = tokens[room:]
            if not self._stack.room():
                self._flush()

    def result(self) -> SecondMoments:
        """The moments; nothing may be added after."""
        self._flush()
        return SecondMoments(self._gram, self._total, self._count)

    def _flush(self) -> None:
        rows = self._stack.take()
        if len(rows):
            even = of_one_size(rows.astype(np.float64))
            if rows.dtype == np.float32:
                even = even.astype(np.float32)
            self._gram += even.T @ even
            self._total += rows.sum(axis=0, dtype=np.float64)
            self._count += len(rows)

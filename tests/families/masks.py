"""Which keys a query may see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.families.writer import Writer

LOWEST = -1e4
"""What is added to the score of an excluded key: half precision holds it, and a softmax makes zero of it."""


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see.

    Attributes:
        padding: The input [batch, keys] that is one for tokens and zero for padding; "" for none.
        causal: Whether a query sees only keys up to its own position.
    """

    padding: str = ""
    causal: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.padding and not self.causal


def addend(w: Writer, mask: Mask, queries: str) -> str:
    """What is added to the scores, broadcast to [batch, heads, queries, keys]."""

    def make() -> str:
        if mask.causal:
            return w.op("Where", _seen(w, mask, queries), w.number(0.0), w.number(LOWEST))
        wide = w.op("Unsqueeze", mask.padding, w.ints(1, 2))
        ones = w.op("Cast", wide, to=_onnx_type(w))
        return w.op("Mul", w.op("Sub", w.number(1.0), ones), w.number(LOWEST))

    return w.once(f"addend of {mask}", make)


def visible(w: Writer, mask: Mask, queries: str) -> str:
    """Whether a query sees a key, a boolean broadcast to [batch, heads, queries, keys]."""
    return w.once(f"visible of {mask}", lambda: _seen(w, mask, queries))


def positions(w: Writer, x: str) -> str:
    """0, 1, 2, ... along the length of `x`."""

    def make() -> str:
        size = w.op("Gather", w.op("Shape", x), w.integer(1), axis=0)
        return w.op("Range", w.integer(0), size, w.integer(1))

    return w.once(f"positions of {x}", make)


def _seen(w: Writer, mask: Mask, queries: str) -> str:
    kept = ""
    if mask.padding:
        kept = w.op("Cast", w.op("Unsqueeze", mask.padding, w.ints(1, 2)), to=9)
    if not mask.causal:
        return kept
    steps = positions(w, queries)
    rows, columns = w.op("Unsqueeze", steps, w.ints(1)), w.op("Unsqueeze", steps, w.ints(0))
    earlier = w.op("Not", w.op("Less", rows, columns))
    return w.op("And", kept, earlier) if kept else earlier


def _onnx_type(w: Writer) -> int:
    return {np.dtype(np.float32): 1, np.dtype(np.float16): 10}[w.spec.float_type]

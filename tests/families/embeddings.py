"""What tokens are before the first layer, and what becomes of them behind the last."""

from __future__ import annotations

import numpy as np

from tests.families.linears import linear
from tests.families.masks import positions
from tests.families.numbers import tables, vectors
from tests.families.writer import Writer


def embedded(w: Writer, ids: str) -> str:
    """Tokens and their positions [batch, length, C]."""
    dims = w.spec.dims
    with w.inside("embeddings"):
        words = w.op("Gather", table(w), ids, axis=0)
        places = w.parameter("positions", vectors(dims.positions, dims.width, size=0.5), key="positions")
        x = w.op("Add", words, w.op("Gather", places, positions(w, ids), axis=0))
        w.passed(x, "Shape")  # which nobody reads
        return w.passed(x, "Dropout")


def table(w: Writer) -> str:
    """The embedding of the vocabulary [V, C]."""
    return w.parameter("words", tables(w.spec), key="words")


def token_inputs(w: Writer, prefix: str = "", length: int | str | None = None) -> tuple[str, str]:
    """The ids and the mask of a sequence."""
    shape = [w.batch, w.length if length is None else length]
    return (
        w.input(f"{prefix}input_ids", np.int64, shape),
        w.input(f"{prefix}attention_mask", np.int64, shape),
    )


def finish(w: Writer, x: str, length: int | str) -> None:
    """What the model gives."""
    dims, head = w.spec.dims, w.spec.head
    if head in ("first", "both"):
        with w.inside("pooler"):
            first = w.op("Gather", x, w.integer(0), axis=1)
            pooled = w.op("Tanh", linear(w, first, "dense", dims.width, dims.width, rank=2))
            w.output(pooled, "pooled", [w.batch, dims.width])
    if head == "scores":
        with w.inside("head"):
            tied = table(w) if w.spec.shared == "tied" else ""
            scores = linear(w, x, "dense", dims.width, dims.vocabulary, tied=tied)
            w.output(scores, "scores", [w.batch, length, dims.vocabulary])
    if head in ("states", "both"):
        w.output(x, "states", [w.batch, length, dims.width])

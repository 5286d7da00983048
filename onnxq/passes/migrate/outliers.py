"""Which channels stand out so far that the integer product does better without them.

A tensor has one step for all of its channels, Δ = (max - min) / 255 in 8 bits, so the few channels that reach
furthest decide the error of all. With the channels in a set S multiplied in float, the range only has to hold
the others (their rows in the integer weight are zero, so saturation there is multiplied by zero), and the
channels of S bring no error of their own:

    E(S) = Δ(rest)²/12 * Σ_{j not in S, n} W_jn²  +  Σ_n δ_n(rest)²/12 * Σ_{j not in S} e_j

which is `scales.expected_error`. For each number of channels the best S is found exactly: it takes the
highest a channels from the top and the lowest of what is left from the bottom. Where rows of the tensor were
kept, E is measured on them instead.

Source: the channels that QLLM (arXiv 2310.08041, sec. 3.1) disassembles, multiplied in float as in
LLM.int8() (arXiv 2208.07339); the choice is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxq.ir.channels import live_channels
from onnxq.passes.migrate.rounding_trial import AS_SEEN, TrialBits
from onnxq.passes.migrate.scales import expected_error

TOLERANCE = 0.05
"""How much worse than the best count a smaller one may be and still be taken."""
ROWS = 256
"""Rows that a measured error is taken over: enough to rank counts, few enough to rank them fast."""
_FINE = 4
"""Counts up to here are all tried; above, each is about a quarter larger than the last."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Channels to take out of an integer product.

    Attributes:
        channels: int64 [k], ascending; may be empty.
        before: Squared error of the whole integer product.
        after: Squared error without the channels.
    """

    channels: np.ndarray
    before: float
    after: float

    @property
    def gain(self) -> float:
        """How many times smaller the squared error becomes."""
        return self.before / max(self.after, 1e-300)


@dataclass(frozen=True, eq=False)
class Product:
    """An integer product in the making: what is known of its activation and of the weights that meet it.

    Attributes:
        low: Least value of each channel [C].
        high: Greatest value of each channel [C].
        weight: The weights of all linears that read the activation, side by side, float64 [C, N].
        rows: Tokens of the activation [R, C], or None.
        bits: How finely activation and weights will be rounded.
    """

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray
    rows: np.ndarray | None = None
    bits: TrialBits = AS_SEEN

    @property
    def live(self) -> np.ndarray:
        """Channels that reach any output, bool [C]."""
        return live_channels([self.weight])

    def error(self, channels: np.ndarray) -> float:
        """Squared error of the integer product with `channels` left to a product in float."""
        rest = self.live
        rest[channels] = False
        weight = np.where(rest[:, None], self.weight, 0.0)
        low, high = np.where(rest, self.low, 0.0), np.where(rest, self.high, 0.0)
        if self.rows is not None and len(self.rows):
            return _measured_error(self.rows[:ROWS], weight, low, high, self.bits)
        powers = np.einsum("kn,kn->k", weight, weight)
        return expected_error(low, high, np.ones(low.shape), [weight], powers, self.bits)


def side_by_side(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Weights [C, N] each as one float64 [C, sum of N]."""
    return np.concatenate([np.asarray(weight, np.float64) for weight in weights], axis=1)


def choose_channels(product: Product, limit: int, *, tolerance: float = TOLERANCE) -> Choice:
    """The fewest channels, at most `limit`, without which the error is within `tolerance` of the least."""
    sets = [rank_channels(product, count) for count in counts_up_to(limit)]
    errors = [product.error(channels) for channels in sets]
    ceiling = min(errors) * (1 + tolerance)
    best = next(index for index, error in enumerate(errors) if error <= ceiling)
    return Choice(sets[best], errors[0], errors[best])


def counts_up_to(limit: int) -> list[int]:
    """The numbers of channels that are tried: 0, and up to `limit`."""
    counts = [0]
    while counts[-1] < limit:
        last = counts[-1]
        counts.append(min(limit, last + 1 if last < _FINE else math.ceil(last * 1.25)))
    return counts


def rank_channels(product: Product, count: int) -> np.ndarray:
    """The `count` live channels (or all there are) whose leaving narrows the range most, ascending int64."""
    live = np.flatnonzero(product.live)
    low, high = np.minimum(product.low[live], 0.0), np.maximum(product.high[live], 0.0)
    count = min(count, len(live))
    from_top = np.argsort(-high, kind="stable")
    from_bottom = np.argsort(low, kind="stable")
    best, narrowest = from_top[:count], np.inf
    for top in range(count + 1):
        taken = np.zeros(len(live), bool)
        taken[from_top[:top]] = True
        rest = from_bottom[~taken[from_bottom]]
        taken[rest[: count - top]] = True
        span = high[~taken].max(initial=0.0) - low[~taken].min(initial=0.0)
        if span < narrowest:
            best, narrowest = np.flatnonzero(taken), span
    return np.sort(live[best]).astype(np.int64)


def _measured_error(
    rows: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray, bits: TrialBits
) -> float:
    """Mean squared error of the outputs on `rows`, activations and weights rounded."""
    floor, top = min(float(low.min(initial=0.0)), 0.0), max(float(high.max(initial=0.0)), 0.0)
    step = (top - floor) * (1 + bits.margin) / bits.levels or 1.0
    zero = np.rint(-floor * (1 + bits.margin) / step)
    exact = rows.astype(np.float32)
    rounded = ((np.clip(np.rint(exact / step) + zero, 0, bits.levels) - zero) * step).astype(np.float32)
    steps = np.abs(weight).max(axis=0, initial=0.0) / bits.weight_levels
    steps[steps == 0] = 1.0
    codes = np.rint(weight / steps) * steps
    # Dead channels saturate in `rounded`, and their rows of zeros forgive it.
    error = rounded @ codes.astype(np.float32) - exact @ weight.astype(np.float32)
    return float(np.square(error, dtype=np.float64).sum() / len(rows))

"""Into how many copies a channel goes, so that none of them reaches further than a threshold.

Channel j becomes T_j = ceil(reach_j / θ) copies of x_j / T_j, each with the row W_j: the sum is x_j W_j as
before, the step Δ is that of a range T times narrower, and weight rows are not enlarged. All copies
round alike, so channel j itself errs with the noise of T_j steps:

    E(T) = Δ(T)²/12 * Σ_jn (T_j W_jn)²  +  Σ_n δ_n²/12 * Σ_j e_j

Staggered, copy k is moved by (k - (T_j - 1) / 2) Δ / T_j before it is rounded: the copies then round in
turn, their sum has the resolution Δ (Hermite's identity), and T_j² becomes 1 in E. θ is searched on E, or on
the real output error where tokens were kept, with "do nothing" among the candidates.

Source: channel disassembly of QLLM (arXiv 2310.08041, sec. 3.1); staggering is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxq.passes.migrate.outliers import ROWS, TOLERANCE, Product
from onnxq.passes.migrate.scales import ENERGY_OF_RANGE

CANDIDATES = 48
ROUNDS = 16
"""In which the step of staggered copies is found: even at 2 bits a round leaves half of the error at most."""


@dataclass(frozen=True, eq=False)
class Copies:
    """How many copies of each channel.

    Attributes:
        counts: int64 [C], each at least 1.
        before: Squared error with one copy each.
        after: Squared error with these.
    """

    counts: np.ndarray
    before: float
    after: float

    @property
    def gain(self) -> float:
        """How many times smaller the squared error becomes."""
        return self.before / max(self.after, 1e-300)


@dataclass(frozen=True)
class Rules:
    """What limits the copies.

    Attributes:
        ratio: Most channels that a threshold may add, as part of those there are; `multiple` may be in any
            case.
        multiple: The number of channels is rounded up to a multiple of this, by copying further channels.
        stagger: Whether copies round in turn.
    """

    ratio: float = 0.1
    multiple: int = 16
    stagger: bool = False


def choose_copies(product: Product, rules: Rules, *, tolerance: float = TOLERANCE) -> Copies:
    """The fewest copies whose error is within `tolerance` of the least among all thresholds."""
    reach = _reach(product)
    greatest = float(reach.max(initial=0.0))
    tried = [np.ones(reach.shape, np.int64)]
    totals = {int(tried[0].sum())}
    for theta in np.geomspace(greatest, greatest / 64, CANDIDATES) if greatest > 0 else ():
        asked = _asked(reach, float(theta))
        if asked.sum() - asked.size > max(rules.ratio * asked.size, rules.multiple):
            break
        counts = _padded(asked, reach, rules.multiple)
        if int(counts.sum()) not in totals:
            totals.add(int(counts.sum()))
            tried.append(counts)
    errors = [copying_error(product, counts, rules.stagger) for counts in tried]
    ceiling = min(errors) * (1 + tolerance)
    best = next(index for index, error in enumerate(errors) if error <= ceiling)
    return Copies(tried[best], errors[0], errors[best])


def copies_at(product: Product, theta: float, rules: Rules) -> np.ndarray:
    """The copies that the threshold `theta` > 0 asks for, and those that pad them, int64 [C]."""
    reach = _reach(product)
    return _padded(_asked(reach, theta), reach, rules.multiple)


def step_of(product: Product, counts: np.ndarray, stagger: bool = False) -> float:
    """The step of the tensor of copies, rounded as `product.bits` says."""
    return _grid(product, counts, stagger)[0]


def offsets_of(counts: np.ndarray, step: float) -> np.ndarray:
    """What staggered copies are moved by, copy by copy, float64 [sum of counts]."""
    return np.concatenate([(np.arange(count) - (count - 1) / 2) / count * step for count in counts])


def copying_error(product: Product, counts: np.ndarray, stagger: bool = False) -> float:
    """E(T) of this module's docstring, or the mean squared error on the tokens of `product`."""
    if product.rows is not None and len(product.rows):
        return _measured_error(product, counts, stagger)
    step = step_of(product, counts, stagger)
    powers = np.einsum("kn,kn->k", product.weight, product.weight)
    repeats = np.ones(counts.shape) if stagger else counts.astype(np.float64) ** 2
    energy = ENERGY_OF_RANGE * _reach(product) ** 2
    steps = np.abs(product.weight).max(axis=0, initial=0.0) / product.bits.weight_levels
    rounding = step**2 / 12 * float((repeats * powers).sum())
    return rounding + float(np.square(steps).sum()) / 12 * float(energy.sum())


def _reach(product: Product) -> np.ndarray:
    return np.where(product.live, np.maximum(np.abs(product.low), np.abs(product.high)), 0.0)


def _asked(reach: np.ndarray, theta: float) -> np.ndarray:
    # A hair of room, or the channel that set the threshold would be split by a rounding.
    return np.maximum(np.ceil(reach / theta * (1 - 1e-9)), 1).astype(np.int64)


def _padded(counts: np.ndarray, reach: np.ndarray, multiple: int) -> np.ndarray:
    """More copies of what reaches furthest, up to the next multiple; none where nothing is copied."""
    if (counts == 1).all() or multiple <= 1:
        return counts
    padded = counts.copy()
    for _ in range(-int(counts.sum()) % multiple):
        padded[int(np.argmax(reach / padded))] += 1
    return padded


def _grid(product: Product, counts: np.ndarray, stagger: bool) -> tuple[float, float]:
    """The step of the tensor of copies, and the code of zero.

    Staggered copies reach further by parts of the step, and a wider range has a wider step: they are found in
    turn.
    """
    live, bits = product.live, product.bits
    low, high = (product.low / counts)[live], (product.high / counts)[live]
    moved = ((counts - 1) / counts / 2)[live] if stagger else np.zeros(low.shape)
    step = floor = 0.0
    for _ in range(ROUNDS if stagger else 1):
        floor = min(float((low - moved * step).min(initial=0.0)), 0.0) * (1 + bits.margin)
        top = max(float((high + moved * step).max(initial=0.0)), 0.0) * (1 + bits.margin)
        step = (top - floor) / bits.levels
    return step, float(np.rint(-floor / step)) if step else 0.0


def _measured_error(product: Product, counts: np.ndarray, stagger: bool) -> float:
    """With activations and weights rounded; copies are summed before they meet their weight."""
    assert product.rows is not None
    step, zero = _grid(product, counts, stagger)
    grid = (step or 1.0, zero, product.bits.levels)
    exact = product.rows[:ROWS].astype(np.float64)
    single = exact / counts
    summed = counts * _rounded(single, grid)
    if stagger:
        for channel in np.flatnonzero(counts > 1):
            moved = offsets_of(counts[channel : channel + 1], step)
            parts = _rounded(single[:, channel, None] + moved, grid)
            summed[:, channel] = parts.sum(axis=1)  # the offsets add up to zero
    steps = np.abs(product.weight).max(axis=0, initial=0.0) / product.bits.weight_levels
    steps[steps == 0] = 1.0
    codes = np.rint(product.weight / steps) * steps
    error = summed.astype(np.float32) @ codes.astype(np.float32)
    error -= exact.astype(np.float32) @ product.weight.astype(np.float32)
    return float(np.square(error, dtype=np.float64).sum() / len(exact))


def _rounded(values: np.ndarray, grid: tuple[float, float, int]) -> np.ndarray:
    """`values` on a grid: its step, the code of zero, and the greatest code."""
    step, zero, levels = grid
    return np.asarray((np.clip(np.rint(values / step) + zero, 0, levels) - zero) * step)

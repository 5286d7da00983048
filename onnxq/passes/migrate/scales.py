"""Which scale to move: where the rounding of activations and the rounding of weights cost the least together.

A linear y = x W with x rounded per tensor (step Δ) and W per column (steps δ_n), to 8 bits or fewer, errs by
noise of variance Δ²/12 in each x_j and δ_n²/12 in each W_jn. With channel j divided by s_j and its row
multiplied by s_j, the expected squared error of y, summed over columns, is

    E(s) = Δ(s)²/12 * Σ_jn (s_j W_jn)²  +  Σ_n δ_n(s)²/12 * Σ_j e_j / s_j²

with e_j the energy of channel j. Outlier Suppression+ (arXiv 2304.09145, sec. 3.2) scales only channels that
stick out of a threshold t, s_j = max(1, c_j / t), and searches t by running the network; here t minimises
E in closed form, from the channels' extremes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.passes.migrate.rounding_trial import AS_SEEN, TrialBits

CANDIDATES = 48
WORTH_MOVING = 1.02
"""How many times smaller the error must become. The optimum is flat: a second search, whose thresholds lie
elsewhere, finds up to a hundredth less and may move channels fourfold for it."""
ENERGY_OF_RANGE = 1 / 16
"""Energy of a channel as part of its squared half range: a Gaussian whose extremes lie at four sigmas."""

_COLUMNS = 4096


def choose_scale(
    low: np.ndarray, high: np.ndarray, weights: Sequence[np.ndarray], bits: TrialBits = AS_SEEN
) -> np.ndarray:
    """The scale [C], each element at least 1, that minimises the expected error of the linears.

    Args:
        low: Least value of each channel [C], after the shift that is to be applied.
        high: Greatest value of each channel [C].
        weights: The weights [C, N] of all linears that read the tensor.
        bits: How finely both will be rounded.

    Returns:
        float64 [C]; all ones if no threshold is worth it against leaving the tensor alone. 1 for channels
        that every weight multiplies by zero.
    """
    powers, heights = _column_data(weights, np.ones(len(low)))
    dead = powers == 0  # multiplied by zero everywhere: such a channel sets no range
    low, high = np.where(dead, 0.0, low), np.where(dead, 0.0, high)
    reach = np.maximum(np.abs(low), np.abs(high))
    greatest = float(reach.max(initial=0.0))
    if greatest <= 0.0:
        return np.ones(reach.shape)
    lifted = _column_data(weights, reach)[1]
    lowest = max(0.25 * float(np.median(reach[~dead])), 1e-4 * greatest)
    best, best_error = np.ones(reach.shape), np.inf
    # From the largest threshold down, so that a tie is won by the one that moves least.
    for threshold in np.geomspace(greatest, lowest, CANDIDATES):
        scale = np.maximum(reach / threshold, 1.0)
        # max over j of |W_jn| max(c_j / t, 1): the weights need no second look.
        steps = np.maximum(lifted / threshold, heights)
        error = _error(low, high, scale, float(np.square(steps).sum()), powers, bits)
        if error < best_error * (1 - 1e-9):
            best, best_error = scale, error
    untouched = _error(low, high, np.ones(reach.shape), float(np.square(heights).sum()), powers, bits)
    return best if untouched >= WORTH_MOVING * best_error else np.ones(reach.shape)


def expected_error(
    low: np.ndarray,
    high: np.ndarray,
    scale: np.ndarray,
    weights: Sequence[np.ndarray],
    powers: np.ndarray,
    bits: TrialBits = AS_SEEN,
) -> float:
    """E(s) of this module's docstring, with the energies e_j taken from the channels' reach.

    Args:
        low: Least value of each channel [C].
        high: Greatest value of each channel [C].
        scale: [C].
        weights: [C, N] each.
        powers: Σ_n W_jn² over all weights, [C].
        bits: How finely both will be rounded.
    """
    low, high = np.where(powers > 0, low, 0.0), np.where(powers > 0, high, 0.0)
    return _error(low, high, scale, float(np.square(_column_data(weights, scale)[1]).sum()), powers, bits)


def _error(
    low: np.ndarray, high: np.ndarray, scale: np.ndarray, steps: float, powers: np.ndarray, bits: TrialBits
) -> float:
    """E(s), given the sum over columns of the squared greatest number of the scaled weights."""
    span = max(float((high / scale).max()), 0.0) - min(float((low / scale).min()), 0.0)
    energy = ENERGY_OF_RANGE * np.maximum(np.abs(low), np.abs(high)) ** 2
    step = span * (1 + bits.margin) / bits.levels
    activations = step**2 / 12 * float((scale**2 * powers).sum())
    return activations + steps / bits.weight_levels**2 / 12 * float((energy / scale**2).sum())


def _column_data(weights: Sequence[np.ndarray], factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of all weights: the energy of each row [C], and the greatest ``factor * |number|`` of each column [N].

    A part of the columns at a time, since the head of a language model is half of its weights.
    """
    powers, heights = np.zeros(len(factors)), []
    for weight in weights:
        for start in range(0, weight.shape[1], _COLUMNS):
            part = np.abs(np.asarray(weight[:, start : start + _COLUMNS], np.float64))
            powers += np.einsum("kn,kn->k", part, part)
            heights.append((part * factors[:, None]).max(axis=0, initial=0.0))
    return powers, np.concatenate(heights) if heights else np.zeros(0)

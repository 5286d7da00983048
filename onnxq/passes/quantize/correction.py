"""Weights and biases that make up for what rounding the activations does, in closed form.

A product gets ``x~ = x + m e`` in place of x: e is what rounding does to each element, uncorrelated from
channel to channel, and m is 1 with probability p, else 0. On average

    E||x W - x~ V||^2 = tr(V'A V) - 2 tr(V'B W) + tr(W'B W),
    A = B + p diag(sum e^2),   B = sum x'x,

so dropping the rounding of elements at random, QDrop's way to keep weights from relying on one particular
rounding, is for one layer a ridge, and the best real weight is ``A^-1 B W``. For p = 1 and a low rank it is
the correction of QLLM, solved rather than learned, for the product's own rounding.

Sources: QDrop (arXiv 2203.05740, sec. 3); QLLM (arXiv 2310.08041, sec. 3.2); bias correction as in
"Data-Free Quantization" (arXiv 1906.04721, sec. 4.2), with measured means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.ir.channels import live_channels

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Expectation:
    """The quadratic form above, for one layer.

    Attributes:
        second: A, float64 [K, K].
        gram: B, float64 [K, K].
    """

    second: Floats
    gram: Floats

    def loss(self, weight: np.ndarray, values: np.ndarray) -> float:
        """``E||x W - x~ V||^2``, summed over tokens."""
        exact, given = np.asarray(weight, np.float64), np.asarray(values, np.float64)
        return float(
            np.vdot(exact, self.gram @ exact)
            - 2 * np.vdot(given, self.gram @ exact)
            + np.vdot(given, self.second @ given)
        )


def expect_own_noise(gram: np.ndarray, noise: np.ndarray, probability: float = 1.0) -> Expectation:
    """The form for a product's own rounding.

    Args:
        gram: X'X of the exact activations [K, K].
        noise: Squared rounding error of each channel, summed over tokens, [K]: for fine grids the number of
            tokens times ``step**2 / 12``.
        probability: p.
    """
    exact = np.asarray(gram, np.float64)
    return Expectation(exact + np.diag(probability * noise), exact)


def best_weight(weight: np.ndarray, form: Expectation, *, damping: float = 1e-3, rank: int = 0) -> Floats:
    """The real weight of the least expected error, ``(A + a I)^-1 (B + a I) W``.

    Args:
        weight: W [K, N]. Its rows of zeros stay zeros.
        form: A and B.
        damping: a, as a part of the mean of A's diagonal: how closely W is kept to where activations are few.
        rank: Rank of the difference to W at most, the best of that rank in the norm of A; 0 for any.
    """
    exact = np.asarray(weight, np.float64)
    live: np.ndarray = live_channels([exact]) & (np.diag(form.second) > 0)
    if not live.any():
        return exact.copy()
    second = form.second[np.ix_(live, live)]
    second = second + damping * float(np.diag(second).mean()) * np.eye(len(second))
    wanted = (form.gram - form.second)[live] @ exact
    change = np.linalg.solve(second, wanted)
    if 0 < rank < min(change.shape):
        change = _truncate(change, second, rank)
    best = exact.copy()
    best[live] += change
    return best


def _truncate(change: Floats, second: Floats, rank: int) -> Floats:
    """The matrix of that rank nearest to `change` in the norm ``tr(D'A D)``."""
    lower = np.linalg.cholesky(second)
    left, sizes, right = np.linalg.svd(lower.T @ change, full_matrices=False)
    kept: Floats = np.linalg.solve(lower.T, (left[:, :rank] * sizes[:rank]) @ right[:rank])
    return kept


def mean_error(
    rows: npt.NDArray[np.floating[Any]],
    weight: np.ndarray,
    rounded_rows: npt.NDArray[np.floating[Any]],
    values: np.ndarray,
) -> Floats:
    """What to add to the bias so that outputs are right on average: ``mean(x W - x~ V)``, float64 [N].

    Args:
        rows: Exact activations [R, K].
        weight: W [K, N].
        rounded_rows: The same as the quantized product sees them, [R, K].
        values: V, what the codes of the weight stand for, [K, N].
    """
    exact = rows.mean(axis=0, dtype=np.float64) @ np.asarray(weight, np.float64)
    found: Floats = exact - rounded_rows.mean(axis=0, dtype=np.float64) @ np.asarray(values, np.float64)
    return found

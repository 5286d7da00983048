"""Which two channels of a product can become one, their mean, at the least cost.

With channels i and j replaced by x̄ = (x_i + x_j) / 2 and the row W_i + W_j, the output changes by
(x_i - x_j)(W_i - W_j) / 2 up to its sign: a product of a column and a row, so that its squared size is

    D(i, j) = ‖x_i - x_j‖² ‖W_i - W_j‖² / 4

exactly, from the Gram matrix of x and from W, without a loop. Pairs are formed between the even and the odd
channels, the cheapest first, each channel once.

Source: channel assembly of QLLM (arXiv 2310.08041, sec. 3.2; eq. 5 is this D) with the bipartite matching of
token merging (arXiv 2210.09461); pairs instead of larger groups are ours.
"""

from __future__ import annotations

import numpy as np


def merging_costs(gram: np.ndarray, weight: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """D(i, j) for each i of `left` and j of `right`.

    Args:
        gram: X^T X, float64 [C, C].
        weight: [C, N].
        left: int64 [L].
        right: int64 [R].

    Returns:
        float64 [L, R], at least 0.
    """
    costs: np.ndarray = _distances(gram, left, right) * _distances(weight @ weight.T, left, right) / 4
    return costs


def choose_pairs(gram: np.ndarray, weight: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` pairs of `candidates`, the cheapest first, int64 [pairs, 2], no channel twice."""
    left, right = candidates[::2], candidates[1::2]
    costs = merging_costs(gram, weight, left, right)
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for flat in np.argsort(costs, axis=None, kind="stable"):
        if len(pairs) >= min(count, len(right)):
            break
        row, column = divmod(int(flat), len(right))
        one, two = int(left[row]), int(right[column])
        if one not in taken and two not in taken:
            taken |= {one, two}
            pairs.append((one, two))
    return np.array(pairs, np.int64).reshape(-1, 2)


def merging_error(gram: np.ndarray, weight: np.ndarray, pairs: np.ndarray) -> float:
    """Squared change of the output when all `pairs` are merged, as part of the squared output."""
    one, two = pairs.T
    both = gram[:, one] - gram[:, two]
    between = both[one] - both[two]
    rows = (weight[one] - weight[two]) / 2
    whole = float(np.einsum("kn,kn->", weight, gram @ weight))
    return float(np.einsum("pn,pn->", rows, between @ rows)) / max(whole, 1e-300)


def _distances(products: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared distances from a matrix of inner products, [L, R]."""
    squares = np.diag(products)
    found: np.ndarray = squares[left, None] + squares[right] - 2 * products[np.ix_(left, right)]
    return np.asarray(np.maximum(found, 0.0))

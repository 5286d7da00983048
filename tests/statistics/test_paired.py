"""Moments of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.statistics import PairedMoments


def pair(seed: int = 0, tokens: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(1, 2, size=(tokens, 5))
    return x, np.round(x * 2) / 2 + 0.1


def test_parts_merge_to_the_whole() -> None:
    x, coarse = pair()
    merged = PairedMoments.of(x[:7], coarse[:7]).merge(PairedMoments.of(x[7:], coarse[7:]))
    for name, value in vars(PairedMoments.of(x, coarse)).items():
        np.testing.assert_allclose(getattr(merged, name), value, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(merged.shift, (coarse - x).mean(axis=0))


def test_least_squares_on_the_sums_undoes_what_a_linear_map_did() -> None:
    x, _ = pair()
    mixing = np.random.default_rng(1).normal(size=(5, 5))
    found = PairedMoments.of(x, x @ mixing)
    weight = np.random.default_rng(2).normal(size=(5, 3))
    corrected = np.linalg.solve(found.gram, found.cross @ weight)
    np.testing.assert_allclose(x @ mixing @ corrected, x @ weight, atol=1e-8)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        PairedMoments.of(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="do not merge"):
        PairedMoments.of(np.ones((3, 2)), np.ones((3, 2))).merge(
            PairedMoments.of(np.ones((1, 1)), np.ones((1, 1)))
        )

"""Sums of products."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from onnxq.statistics import RawMoments, SecondMoments


def parts_of(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_t(4, size=(rng.integers(1, 40), 5)) * 10 ** rng.uniform(-4, 4)).astype(np.float32)
        for _ in range(20)
    ]


def test_second_moments_count_every_token_the_same() -> None:
    parts = parts_of(0)
    whole = np.concatenate(parts).astype(np.float64)
    merged = reduce(SecondMoments.merge, map(SecondMoments.of, parts))
    even = whole / np.sqrt((whole**2).mean(axis=1, keepdims=True))
    np.testing.assert_allclose(merged.gram, even.T @ even, rtol=1e-10, atol=1e-12)
    assert np.trace(merged.gram) == pytest.approx(whole.size)
    np.testing.assert_allclose(merged.total, whole.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(merged.mean, whole.mean(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(merged.gram, merged.gram.T)
    assert merged.count == len(whole)
    turned = reduce(SecondMoments.merge, map(SecondMoments.of, parts[::-1]))
    np.testing.assert_allclose(turned.gram, merged.gram, rtol=1e-11, atol=0)


def test_moments_of_other_channels_do_not_merge() -> None:
    with pytest.raises(ValueError, match="5 channels"):
        SecondMoments.of(np.ones((2, 5))).merge(SecondMoments.of(np.ones((2, 1))))


def test_raw_moments_give_kurtosis_and_infinity_norm() -> None:
    parts = parts_of(1)
    whole = np.concatenate(parts).astype(np.float64)
    merged = reduce(RawMoments.merge, map(RawMoments.of, parts))
    central = whole - whole.mean()
    assert merged.mean == pytest.approx(whole.mean(), rel=1e-9)
    assert merged.variance == pytest.approx(whole.var(), rel=1e-9)
    assert merged.kurtosis == pytest.approx((central**4).mean() / whole.var() ** 2, rel=1e-9)
    assert merged.infinity_norm == pytest.approx(np.mean([np.abs(part).max() for part in parts]))
    assert reduce(RawMoments.merge, map(RawMoments.of, parts[::-1])) == merged


def test_a_constant_has_no_kurtosis() -> None:
    assert np.isnan(RawMoments.of(np.zeros(5)).kurtosis)


def test_a_token_of_zeros_adds_nothing() -> None:
    some = np.array([[3.0, 4.0], [0.0, 0.0]])
    found = SecondMoments.of(some)
    np.testing.assert_allclose(found.gram, SecondMoments.of(some[:1]).gram)
    assert found.count == 2

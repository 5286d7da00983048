"""Sums over a stream are those of all tokens at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxq.calibration.sums import BLOCK, MomentSum
from onnxq.statistics import SecondMoments


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_moments_of_a_stream(dtype: type[Any], error: float) -> None:
    rng = np.random.default_rng(0)
    spread = 10 ** rng.uniform(-3, 3, size=24)  # outlier channels beside quiet ones
    tokens = (rng.standard_normal((3 * BLOCK + 7, 24)) * spread).astype(dtype)
    stream = MomentSum(24, tokens.dtype)
    for part in np.array_split(tokens, 11):
        stream.add(part)
    found, exact = stream.result(), SecondMoments.of(tokens)
    size = np.sqrt(np.diag(exact.gram))
    assert (np.abs(found.gram - exact.gram) / np.outer(size, size)).max() < error
    np.testing.assert_allclose(found.total, exact.total, rtol=1e-9)
    np.testing.assert_array_equal(found.gram, found.gram.T)
    assert found.count == len(tokens)

"""Random weights, and what is odd about them."""

from __future__ import annotations

import numpy as np

from tests.families.spec import Spec
from tests.families.writer import Numbers

OUTLIERS = (3, 17)
"""Channels that tower over the others."""


def gammas(spec: Spec) -> Numbers:
    """Scales of a norm [C]."""

    def make(random: np.random.Generator) -> np.ndarray:
        numbers = random.uniform(0.6, 1.6, spec.dims.width)
        some = random.choice(spec.dims.width, 5, replace=False)
        if spec.gamma == "ones":
            numbers[:] = 1.0
        elif spec.gamma == "tiny":
            numbers[some] *= 1e-3
        elif spec.gamma == "zero":
            numbers[some] = 0.0
        elif spec.gamma == "negative":
            numbers[some] *= -1.5
        elif spec.gamma == "huge":
            numbers[some[:2]] *= 4.0 if spec.is_mild else 12.0
        if spec.outliers == "residual":
            numbers[list(OUTLIERS)] *= 2.0 if spec.is_mild else 6.0
        return numbers

    return make


def betas(spec: Spec) -> Numbers:
    """Shifts of a norm [C]."""

    def make(random: np.random.Generator) -> np.ndarray:
        numbers = 0.3 * random.standard_normal(spec.dims.width)
        if spec.outliers == "residual":
            numbers[list(OUTLIERS)] += 1.0 if spec.is_mild else 4.0
        return numbers

    return make


def weights(spec: Spec, channels: int, columns: int, *, is_up: bool = False) -> Numbers:
    """Weights [K, N] that keep the size of activations; hidden outliers come from a few large columns."""

    def make(random: np.random.Generator) -> np.ndarray:
        numbers = random.standard_normal((channels, columns)) / np.sqrt(channels)
        if is_up and spec.outliers == "hidden":
            numbers[:, list(OUTLIERS)] *= 3.0 if spec.is_mild else 8.0
        return numbers

    return make


def vectors(*shape: int, size: float = 0.2, around: float = 0.0) -> Numbers:
    """Biases, positions and the like."""
    return lambda random: around + size * random.standard_normal(shape)


def tables(spec: Spec) -> Numbers:
    """Embeddings [V, C]."""

    def make(random: np.random.Generator) -> np.ndarray:
        numbers = random.standard_normal((spec.dims.vocabulary, spec.dims.width))
        if spec.outliers == "residual":
            numbers[:, list(OUTLIERS)] *= 2.0 if spec.is_mild else 5.0
        return numbers

    return make

"""A bounded sample of real activations, for searches that judge an output error."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.calibration.source import DataSource
from onnxq.calibration.taps import MEMORY, Report, find_targets, observe
from onnxq.errors import CalibrationError
from onnxq.statistics.extremes import token_keys

Floats = npt.NDArray[np.floating[Any]]


def gather_activations(
    model: ir.Model,
    source: DataSource,
    names: Collection[str],
    *,
    max_tokens: int = 2048,
    seed: int = 0,
    memory: int = MEMORY,
    threads: int = 0,
    progress: Report | None = None,
) -> dict[str, Floats]:
    """Rows of activations, drawn evenly from all tokens of all samples.

    Which tokens are drawn follows from the seed, the content of their sample and their place in it. So values
    with the same tokens (the input and the output of a linear) give the same ones, in the same order, and the
    order of the samples does not matter.

    Args:
        model: The model; not changed.
        source: Data for it, from `open_data`.
        names: Values to draw from.
        max_tokens: Rows to draw from each value; all of them if it has fewer.
        seed: Another seed draws other tokens.
        memory: Bytes for the observed values of one run.
        threads: Threads of the runtime; 0 leaves it to the runtime.
        progress: Told the samples done and to do, after each run.

    Returns:
        Float32 (float64 for values of float64) [T, C] by name, T <= `max_tokens`, padding left out.

    Raises:
        CalibrationError: A value cannot be looked at, has no fixed number of channels, or is not finite.
        BackendError: The runtime refuses the model or fails.
    """
    targets = find_targets(model, names)
    if targets.skipped:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in targets.skipped.items())
        raise CalibrationError(f"cannot draw activations: {reasons}", slug="cannot-observe")
    drawn = {name: _Draw(max_tokens) for name in names}
    for sighting in observe(model, source, targets, memory=memory, threads=threads, report=progress):
        if sighting.masked or not drawn[sighting.name].fits(sighting.tokens):
            raise CalibrationError(
                f"cannot draw activations: {sighting.name!r} holds a mask or has no fixed channels",
                slug="cannot-observe",
            )
        keys = token_keys(len(sighting.tokens), sighting.key ^ (seed * 0x9E3779B97F4A7C15))
        drawn[sighting.name].add(sighting.tokens, keys)
    return {name: draw.result() for name, draw in drawn.items()}


class _Draw:
    """The rows with the least keys so far."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: list[Floats] = []
        self._keys: list[npt.NDArray[np.uint64]] = []
        self._held = 0

    def fits(self, tokens: Floats) -> bool:
        return not self._rows or self._rows[0].shape[1] == tokens.shape[1]

    def add(self, tokens: Floats, keys: npt.NDArray[np.uint64]) -> None:
        best = np.argsort(keys, kind="stable")[: self.size]
        self._rows.append(tokens[best])
        self._keys.append(keys[best])
        self._held += len(best)
        if self._held > 2 * self.size:
            self._settle()

    def result(self) -> Floats:
        if not self._rows:
            return np.zeros((0, 0), dtype=np.float32)
        self._settle()
        return self._rows[0]

    def _settle(self) -> None:
        keys = np.concatenate(self._keys)
        best = np.argsort(keys, kind="stable")[: self.size]
        self._rows, self._keys = [np.concatenate(self._rows)[best]], [keys[best]]
        self._held = len(best)

"""What is learned with gradients (`onnxq.learn`, which needs torch) as steps of a recipe.

A fixed part of the calibration data is held out and decides what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from benchmarks.planned import Bits
from onnxq.api.learned import WriteWeights, weights_on_grid
from onnxq.calibration import DataSource, split
from onnxq.passes.quantize.ranges import Interval
from onnxq.pipeline import apply_pass

Kind = Literal["steps", "rounding", "low-rank"]


@dataclass(frozen=True)
class Learned:
    """What is learned, and for how long.

    Attributes:
        kind: "steps", the ranges of all activations on the model's output; "rounding", codes and ranges block
            by block; "low-rank", corrections of weights on several blocks together.
        bits: That rounding is imitated at.
        epochs: Times that all samples are seen ("steps", "low-rank").
        steps: Steps of the optimizer for each block ("rounding").
        rank: Of the corrections ("low-rank").
        batch: Samples in a batch.
    """

    kind: Kind
    bits: Bits
    epochs: int = 3
    steps: int = 200
    rank: int = 4
    batch: int = 8

    def learn(
        self, model: ir.Model, ranges: Mapping[str, Interval], source: DataSource
    ) -> tuple[ir.Model, Mapping[str, Interval]]:
        """The model with what was learned of its weights, and the ranges of its activations.

        Args:
            model: The float model, as it will be rounded.
            ranges: Ranges to start from, by activation.
            source: Calibration data.

        Raises:
            BackendError: There is no torch.
        """
        from onnxq import learn

        parts = split(source)
        data = (list(parts.calibration), list(parts.held_out))
        bits: dict[str, Any] = {
            "bits": self.bits.activations,
            "weight_bits": self.bits.weights,
            "batch": self.batch,
        }
        if self.kind == "steps":
            step = learn.StepSettings(epochs=self.epochs, **bits)
            return model, learn.learn_steps(model, ranges, *data, step).ranges
        if self.kind == "low-rank":
            low = learn.LowRankSettings(rank=self.rank, epochs=self.epochs, **bits)
            return with_weights(model, learn.learn_low_rank(model, ranges, *data, low).weights), ranges
        rounding = learn.ReconstructSettings(steps=self.steps, **bits)
        found = learn.learn_rounding(model, ranges, *data, rounding)
        weights = weights_on_grid(model, found.codes, self.bits.weights)
        return with_weights(model, weights), found.ranges


def with_weights(model: ir.Model, weights: Mapping[str, np.ndarray]) -> ir.Model:
    """The model with other weights [K, N], by linear."""
    return apply_pass(model, WriteWeights(weights)).model if weights else model


def given_ranges(ranges: Mapping[str, Interval]) -> tuple[tuple[str, float, float], ...]:
    """Ranges as `quantize-linears` takes them."""
    pairs: Iterable[tuple[str, Interval]] = sorted(ranges.items())
    return tuple((name, low, high) for name, (low, high) in pairs)

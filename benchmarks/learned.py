"""What is learned with gradients (`onnxq.learn`, which needs torch) as steps of a recipe.

A fixed part of the calibration data is held out and decides what is kept. Learned codes become weights on
the grid of their column; rounding these to the nearest gives the codes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from benchmarks.planned import Bits
from onnxq.calibration import DataSource, split
from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear, rewrite_linear
from onnxq.ir.walk import nodes
from onnxq.pipeline import apply_pass

Kind = Literal["steps", "rounding", "low-rank"]
Interval = tuple[float, float]


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
        data = (list(parts.calibration), list(parts.heldout))
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
        own = {label_of(node): linear.weight for node in nodes(model) if (linear := _linear_at(node))}
        top = 2 ** (self.bits.weights - 1) - 1
        weights = {
            name: on_grid(own[name], each.codes, each.scale, top) for name, each in found.codes.items()
        }
        return with_weights(model, weights), found.ranges


@dataclass(frozen=True, eq=False)
class _ReplaceWeights(Pass):
    """Linear named in `weights` => the same with that weight [K, N]."""

    weights: Mapping[str, np.ndarray]

    name: ClassVar[str] = "replace-weights"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs()

    def match(self, node: ir.Node, context: Context) -> Linear | Reject | None:
        """A linear that is named and still has another weight."""
        linear = find_linear(node)
        wanted = self.weights.get(label_of(node))
        if not isinstance(linear, Linear) or wanted is None:
            return None
        return None if np.array_equal(linear.weight, wanted.astype(linear.weight.dtype)) else linear

    def rewrite(self, found: Linear, edit: Edit) -> None:
        """Write the weight."""
        rewrite_linear(found, edit, self.weights[label_of(found.node)], found.bias)

    @classmethod
    def examples(cls) -> Examples:
        """None: it is registered nowhere."""
        raise NotImplementedError


def _linear_at(node: ir.Node) -> Linear | None:
    found = find_linear(node)
    return found if isinstance(found, Linear) else None


def on_grid(weight: np.ndarray, codes: np.ndarray, scale: np.ndarray, top: int) -> np.ndarray:
    """What codes stand for, [K, N], so that rounding it to nearest with min-max scales gives them back.

    The largest element of a column sets its scale, so it keeps the largest code even where learning gave it
    the one below.

    Args:
        weight: The original, [K, N].
        codes: Learned codes, [K, N].
        scale: Of the columns, [1, N].
        top: The largest code.
    """
    kept = codes.astype(np.float64)
    columns = np.arange(weight.shape[1])
    largest = np.abs(weight).argmax(0)
    kept[largest, columns] = np.sign(weight[largest, columns]) * top
    return kept * scale.astype(np.float64)


def with_weights(model: ir.Model, weights: Mapping[str, np.ndarray]) -> ir.Model:
    """The model with other weights [K, N], by linear."""
    return apply_pass(model, _ReplaceWeights(weights)).model if weights else model


def given_ranges(ranges: Mapping[str, Interval]) -> tuple[tuple[str, float, float], ...]:
    """Ranges as `quantize-linears` takes them."""
    pairs: Iterable[tuple[str, Interval]] = sorted(ranges.items())
    return tuple((name, low, high) for name, (low, high) in pairs)

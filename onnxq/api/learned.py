"""Refinements that need gradients (`onnxq.learn`, with torch), and what they learn written into the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.api.refinement import Candidate, Refinement, Trial
from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.errors import UnsupportedModel
from onnxq.ir.linear import Linear, find_linear, rewrite_linear
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.ranges import Interval
from onnxq.pipeline import run

if TYPE_CHECKING:  # which wants torch
    from onnxq.learn.reconstruct import Codes

WORK = 1e13
"""Operations that a refinement may take: three minutes of two cores with 512-bit vectors. Counted and not
clocked, so that the same inputs give the same model."""
ROUNDING_STEPS, FEWEST_STEPS = 200, 50
"""Most and fewest steps of the optimizer for each block."""
RANGE_EPOCHS, RANK_EPOCHS = 3, 4
RANK, BATCH = 4, 4


class WriteWeights(Pass):
    """Linear => the same with a weight that was learned.

    Args:
        weights: [K, N], by the label of the linear.
    """

    name: ClassVar[str] = "write-weights"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs()

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights

    def match(self, node: ir.Node, context: Context) -> Linear | Reject | None:
        """A linear with a weight other than the one for it."""
        linear = find_linear(node)
        wanted = self._weights.get(label_of(node))
        if not isinstance(linear, Linear) or wanted is None:
            return None
        return None if np.array_equal(linear.weight, wanted.astype(linear.weight.dtype)) else linear

    def rewrite(self, found: Linear, edit: Edit) -> None:
        """Write the weight."""
        rewrite_linear(found, edit, self._weights[label_of(found.node)], found.bias)

    @classmethod
    def examples(cls) -> Examples:
        """None, since it is registered nowhere: weights are no words."""
        raise NotImplementedError


@dataclass(frozen=True)
class Learning:
    """What `onnxq.learn` is told besides a model.

    Attributes:
        trial: Gives samples to learn from, and others that decide.
        weight_bits: Of the weights.
    """

    trial: Trial
    weight_bits: int = 8

    def refinements(self) -> tuple[Refinement, ...]:
        """In the order of what they cost."""
        return (
            Refinement("activation ranges learned on the output", self._ranges),
            Refinement("weights corrected in low rank, learned on several blocks", self._low_rank),
            Refinement("weights rounded as learned block by block", self._rounding),
        )

    def _ranges(self, candidate: Candidate) -> Candidate:
        """Learned without the margin that ranges have for other data, which is given back afterwards.

        Else all that is learned is to cut it off: MiniLM's ranges came out at 0.86 of their width and 0.76 dB
        better on the samples that judge, and on 128 other texts the lowest cosine fell from 0.9987 to 0.9981.
        """
        from onnxq import learn

        epochs = self._affordable(RANGE_EPOCHS, 1, self.trial.operations())
        settings = learn.StepSettings(epochs=epochs, weight_bits=self.weight_bits, batch=BATCH)
        start = self.trial.ranges(candidate)
        margins = self.trial.margins(start)
        bare = {name: _scaled(ends, margins.get(name), -1) for name, ends in start.items()}
        learned = self._ask(candidate, learn.learn_steps, settings, bare).ranges
        given = {name: _scaled(ends, margins.get(name)) for name, ends in learned.items()}
        return replace(candidate, ranges=replace(candidate.ranges, given=_given(given)))

    def _low_rank(self, candidate: Candidate) -> Candidate:
        from onnxq import learn

        epochs = self._affordable(RANK_EPOCHS, 1, self.trial.operations())
        settings = learn.LowRankSettings(rank=RANK, epochs=epochs, weight_bits=self.weight_bits, batch=BATCH)
        found = self._ask(candidate, learn.learn_low_rank, settings, self.trial.ranges(candidate))
        _require_blocks(found)
        return _with_weights(candidate, found.weights)

    def _rounding(self, candidate: Candidate) -> Candidate:
        from onnxq import learn

        share = BATCH / max(len(self.trial.stage.trial.calibration), BATCH)
        steps = self._affordable(ROUNDING_STEPS, FEWEST_STEPS, share * self.trial.operations())
        settings = learn.ReconstructSettings(steps=steps, weight_bits=self.weight_bits, batch=BATCH)
        found = self._ask(candidate, learn.learn_rounding, settings, self.trial.ranges(candidate))
        _require_blocks(found)
        weights = weights_on_grid(candidate.model, found.codes, self.weight_bits)
        return replace(
            _with_weights(candidate, weights),
            ranges=replace(candidate.ranges, given=_given(found.ranges)),
            fitting=replace(candidate.fitting, on_grid=tuple(sorted(weights))),
        )

    def _affordable(self, most: int, fewest: int, each: float) -> int:
        """How many epochs or steps of so many operations `WORK` allows.

        Raises:
            UnsupportedModel: Fewer than make sense.
        """
        count = min(most, int(WORK / max(each, 1.0)))
        if count < fewest:
            raise UnsupportedModel(
                "learning takes longer on a model of this size than the best effort may", slug="too-large"
            )
        return count

    def _ask(
        self, candidate: Candidate, learner: Callable[..., Any], settings: Any, ranges: Mapping[str, Interval]
    ) -> Any:
        """What `learner` makes of the candidate, starting from `ranges`."""
        parts = self.trial.stage.trial
        self.trial.let_go()
        data = (list(parts.calibration), list(parts.held_out))
        return learner(candidate.model, ranges, *data, settings)


def weights_on_grid(model: ir.Model, codes: Mapping[str, Codes], bits: int) -> dict[str, np.ndarray]:
    """What learned codes stand for, so that rounding it to nearest with min-max scales gives the codes back.

    The largest element of a column sets its scale, so it keeps the largest code even where learning gave it
    the one below.

    Args:
        model: With the original weights.
        codes: Learned, by label of the linear.
        bits: Of the codes.

    Returns:
        Weights [K, N], by label.
    """
    top = 2 ** (bits - 1) - 1
    found: dict[str, np.ndarray] = {}
    for node in nodes(model):
        linear, learned = find_linear(node), codes.get(label_of(node))
        if isinstance(linear, Linear) and learned is not None:
            kept = learned.codes.astype(np.float64)
            largest = np.abs(linear.weight).argmax(axis=0), np.arange(linear.columns)
            kept[largest] = np.sign(linear.weight[largest]) * top
            found[label_of(node)] = kept * learned.scale.astype(np.float64)
    return found


def _require_blocks(found: Any) -> None:
    """Tell having nothing to learn on from learning what does not gain.

    Raises:
        UnsupportedModel: There was no block.
    """
    if not found.blocks:
        raise UnsupportedModel("the model falls into no blocks with linears in them", slug="no-blocks")


def _with_weights(candidate: Candidate, weights: Mapping[str, np.ndarray]) -> Candidate:
    passes = (WriteWeights(weights),)
    written = run(candidate.model, passes, verify="never")
    return replace(candidate, model=written.model, runs=(*candidate.runs, (passes, written)))


def _scaled(ends: Interval, factors: Interval | None, power: int = 1) -> Interval:
    """Both ends times their factors, or divided by them."""
    low, high = factors or (1.0, 1.0)
    return ends[0] * low**power, ends[1] * high**power


def _given(ranges: Mapping[str, Interval]) -> tuple[tuple[str, float, float], ...]:
    return tuple((name, float(low), float(high)) for name, (low, high) in sorted(ranges.items()))

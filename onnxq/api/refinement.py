"""What the best effort tries on a planned model: one other way of rounding it after the next.

Every refinement changes how the whole model is rounded: the ranges of its activations, the scales or the
codes of its weights. It is carried out behind those that were kept, and judged by the network's own output on
samples that are set apart for choices. It is kept where both halves of these gain: with many things tried on
few samples, one of them gains by chance. What was fitted layer by layer and judged by the layer's own output,
as in `QuantizeLinears`, is judged here once more by what comes out at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from onnxq.api.emission import PLAIN, Fitting
from onnxq.api.evaluate import measure_fidelity
from onnxq.api.execution import Run
from onnxq.api.ranges import TRIAL_SAMPLES, Ranges
from onnxq.api.stage import Stage
from onnxq.calibration import DataSource, collect
from onnxq.contract import Pass, names_wanted
from onnxq.errors import BackendError, UnsupportedModel
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.passes.quantize.ranges import Interval
from onnxq.pipeline import apply_pass
from onnxq.planning.adjustable import AdjustableModel
from onnxq.report.rows import RefinementRow
from onnxq.statistics import Statistic, Statistics

GAIN_DB = 0.1
"""What a refinement has to gain on all samples; on each half, anything."""
SECONDS = 300.0
"""After this long no further refinement is begun; the report says which were not."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A planned model and how it is rounded.

    Attributes:
        model: The model in front of rounding; its weights may have been learned.
        ranges: Ranges of activations.
        fitting: How weights are made.
        runs: The passes that wrote learned weights, with what came of them.
    """

    model: ir.Model
    ranges: Ranges
    fitting: Fitting = PLAIN
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Refinement:
    """One thing to try.

    Attributes:
        name: In words, for the report.
        change: Makes the candidate that is tried of the best one so far.
    """

    name: str
    change: Callable[[Candidate], Candidate]


def _fitted(name: str, **changes: Any) -> Refinement:
    return Refinement(
        name, lambda candidate: replace(candidate, fitting=replace(candidate.fitting, **changes))
    )


FITTINGS = (
    _fitted("scales of weights by the least squared error", weight_range="mse"),
    _fitted("weights that make up for the rounding of activations", correct_weight=True),
    _fitted("the same in low rank", correct_weight=True, rank=16),
    _fitted("weights fitted to activations that are rounded now and then", rounding="drop"),
)
"""Closed forms; each takes as long as quantizing once."""


@dataclass(eq=False)
class Trial:
    """Carries candidates out and measures them on samples set apart.

    Attributes:
        stage: The data; its `trial` says which samples are for fitting and which judge.
        model: The model in front of rounding as it was planned, which computes what is wanted.
        rounding: The passes that round the linears of a candidate.
    """

    stage: Stage
    model: ir.Model
    rounding: Callable[[Candidate], Sequence[QuantizeLinears]]

    def __post_init__(self) -> None:
        chosen = self.stage.few(TRIAL_SAMPLES)
        self._halves: list[DataSource] = [chosen.select(chosen.indices[place::2]) for place in (0, 1)]
        self._known = Statistics()
        self._asked: set[tuple[Statistic, str]] = set()

    def quantized(self, candidate: Candidate) -> ir.Model:
        """The candidate's linears as integers, fitted to the float model on the samples for fitting."""
        return self._rounded(candidate, self.rounding(candidate))

    def ranges(self, candidate: Candidate) -> dict[str, Interval]:
        """Ranges that the candidate's activations are rounded with, by name.

        Weights have no bearing on them, so these go to their nearest codes: a tenth of the time, and without
        any of the statistics that are large.
        """
        quick = [
            replace(each, weight_range="minmax", rounding="nearest", correct_weight=False, correct_bias=False)
            for each in self.rounding(candidate)
        ]
        return AdjustableModel(self._rounded(candidate, quick), threads=self.stage.threads).ranges

    def margins(self, ranges: Mapping[str, Interval]) -> dict[str, Interval]:
        """By how much each end lies beyond what the samples for fitting reach, as a factor of 1 or more."""
        return {
            name: (_beyond(low, seen.low), _beyond(high, seen.high))
            for name, (low, high) in ranges.items()
            if (seen := self._known.get(name)) is not None
        }

    def let_go(self) -> None:
        """Forget statistics as large as a model; they are gathered again for the next candidate."""
        self._known = self._known.without(_AS_LARGE_AS_A_MODEL)
        self._asked = {(kind, name) for kind, name in self._asked if kind not in _AS_LARGE_AS_A_MODEL}

    def decibels(self, candidate: Candidate) -> tuple[float, ...]:
        """SQNR of the output on each half of the samples, in dB."""
        model = self.quantized(candidate)
        return tuple(
            measure_fidelity(self.model, model, half, self.stage.threads).sqnr_db
            for half in self._halves
            if len(half)
        )

    def operations(self) -> float:
        """Operations that the linears take to run forwards and backwards once over the samples for fitting.

        Three products for each, of a multiplication and an addition; known once a candidate was quantized.
        """
        found = [linear for node in nodes(self.model) if isinstance(linear := find_linear(node), Linear)]
        return sum(
            6.0 * seen.count * linear.channels * linear.columns
            for linear in found
            if (seen := self._known.get(str(linear.activation.name))) is not None
        )

    def _statistics(self, passes: Sequence[Pass]) -> Statistics:
        """Of the model as it was planned, whatever has become of its weights."""
        wanted = names_wanted(passes, self.model)
        asked = {(kind, name) for kind, names in wanted.items() for name in names}
        if not asked <= self._asked:
            self._known = Statistics()  # before there is more to hold
            self._known = collect(
                self.model, self.stage.trial.calibration, wanted, threads=self.stage.threads
            )
            self._asked = asked
        return self._known

    def _rounded(self, candidate: Candidate, passes: Sequence[Pass]) -> ir.Model:
        statistics, model = self._statistics(passes), candidate.model
        for each in passes:
            model = apply_pass(model, each, statistics).model
        return model


_AS_LARGE_AS_A_MODEL = frozenset({Statistic.SECOND_MOMENTS, Statistic.ROWS})


def _beyond(end: float, reached: float) -> float:
    return max(end / reached, 1.0) if end * reached > 0 else 1.0


def refine(
    start: Candidate, refinements: Sequence[Refinement], trial: Trial
) -> tuple[Candidate, tuple[RefinementRow, ...]]:
    """The candidate with every refinement that the output gains by, and what came of each.

    Args:
        start: Where to begin.
        refinements: What to try, in order.
        trial: Measures candidates.
    """
    if not trial.stage.trial.separate:
        return start, ()
    begun = time.monotonic()
    best, decibels, rows = start, trial.decibels(start), []
    for number, each in enumerate(refinements):
        trial.stage.progress(f"refining: {each.name}", number, len(refinements))
        if time.monotonic() - begun > SECONDS:
            rows.append(RefinementRow(each.name, None, None, False, "not tried: the time was up"))
            continue
        try:
            tried = each.change(best)
            now = trial.decibels(tried)
        except (BackendError, UnsupportedModel) as obstacle:
            rows.append(RefinementRow(each.name, None, None, False, f"not tried: {obstacle.message}"))
            continue
        kept, reason = _verdict(decibels, now)
        rows.append(RefinementRow(each.name, _mean(decibels), _mean(now), kept, reason))
        if kept:
            best, decibels = tried, now
    return best, tuple(rows)


def _verdict(before: Sequence[float], after: Sequence[float]) -> tuple[bool, str]:
    gains = [new - old for old, new in zip(before, after, strict=True)]
    gain = _mean(after) - _mean(before)
    if min(gains) <= 0 < max(gains):
        return False, "one half of the held-out samples gains by it, the other loses"
    if gain < GAIN_DB:
        return (
            False,
            "held-out samples do not gain by it" if gain <= 0 else f"they gain {gain:.2f} dB, too little",
        )
    return True, f"held-out samples gain {gain:.2f} dB"


def _mean(decibels: Sequence[float]) -> float:
    return sum(decibels) / len(decibels)

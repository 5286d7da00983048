"""What was asked for, and whether it was met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from onnxq.api.evaluate import Pace, score_with, time_pairs
from onnxq.api.records import weight_bytes
from onnxq.api.speed import Venue, speed_goal
from onnxq.api.stage import Stage
from onnxq.api.steering import Standing
from onnxq.planning.layer_plan import LayerPlan
from onnxq.planning.options import BLOCK, Option
from onnxq.recipe import OptimizeSettings
from onnxq.report import figures
from onnxq.report.measures import Fidelity, Goal, Timing
from onnxq.targets import Target
from onnxq.verify import Comparison

_FASTER = "`--weights int4` reads half the bytes, which is faster where a run has few rows, as in decoding."
_QUICK = (2, 0.5)
"""Processes for each model, and seconds in each, to see which way to go along the front."""


class Goals:
    """What a plan has to meet, measured on the model that came of it.

    Args:
        stage: The model as it came, and data.
        settings: The goals.
        provider: Execution provider that speed is measured with.

    Attributes:
        scores: What the user's function said last of the original and of a plan's model; None without one.
    """

    def __init__(self, stage: Stage, settings: OptimizeSettings, provider: str = "cpu") -> None:
        self._stage, self._settings, self._provider = stage, settings, provider
        self.scores: tuple[float, float] | None = None

    def standing(self, model: ir.Model, fidelity: Comparison) -> Standing:
        """Where a plan's model stands with them.

        Args:
            model: The model.
            fidelity: Its outputs against those of the original, on held-out data.
        """
        far, costly = self._is_far(model, fidelity), self._is_costly(model)
        if far and costly:
            return Standing.HOPELESS
        return Standing.TOO_FAR if far else Standing.TOO_COSTLY if costly else Standing.FITS

    def _is_far(self, model: ir.Model, fidelity: Comparison) -> bool:
        settings = self._settings
        wanted = settings.min_fidelity
        missed = wanted is not None and any(each.cosine_mean < wanted for each in fidelity.outputs.values())
        if settings.max_drop is None or settings.eval is None:
            return missed
        self.scores = self._score, score_with(settings.eval)(model)
        return missed or drop_of(*self.scores) > settings.max_drop

    def _is_costly(self, model: ir.Model) -> bool:
        settings, stage = self._settings, self._stage
        if settings.max_size is not None and weight_bytes(model) > settings.max_size:
            return True
        if settings.min_speedup is None:
            return False
        pace = Pace(*_QUICK, stage.threads, provider=self._provider)
        timed = time_pairs(stage.model, model, stage.held_out, settings.cases, pace)
        return any(latency["onnxq"].speedup_least < settings.min_speedup for _, latency in timed)

    @cached_property
    def _score(self) -> float:
        """What the original scores."""
        return score_with(self._settings.eval)(self._stage.model) if self._settings.eval else 0.0


def drop_of(before: float, after: float) -> float:
    """How much of a score is lost: 0.01 is one in a hundred."""
    return (before - after) / abs(before) if before else before - after


@dataclass(frozen=True)
class Reached:
    """What came out, as far as goals are about it.

    Attributes:
        fidelity: Of each output.
        timings: Of the original and of the result, at each shape.
        scores: What the user's function says of both; None without one.
        size: Bytes of the weights.
        four: About what they would come to in 4 bits; None where that is no choice.
    """

    fidelity: Sequence[Fidelity]
    timings: Sequence[Timing]
    scores: tuple[float, float] | None
    size: int
    four: int | None = None


def judge_goals(settings: OptimizeSettings, reached: Reached, venue: Venue) -> tuple[Goal, ...]:
    """Every goal, asked for or implied: what is slower than the original where it is to run is no result."""
    goals = (
        speed_goal(settings, reached.timings, venue, _FASTER if reached.four is not None else ""),
        _fidelity_goal(settings, reached.fidelity),
        _score_goal(settings, reached.scores),
        _size_goal(settings, reached.size, reached.four),
    )
    return tuple(goal for goal in goals if goal is not None)


def _fidelity_goal(settings: OptimizeSettings, fidelity: Sequence[Fidelity]) -> Goal | None:
    wanted = settings.min_fidelity
    if wanted is None or not fidelity:
        return None
    worst = min(row.cosine_mean for row in fidelity)
    return Goal(f"mean cosine at least {wanted:g}", f"{worst:.6f}", worst >= wanted)


def _score_goal(settings: OptimizeSettings, scores: tuple[float, float] | None) -> Goal | None:
    if settings.max_drop is None or scores is None:
        return None
    before, after = scores
    drop = drop_of(before, after)
    asked = f"{settings.eval} drops by at most {settings.max_drop:.2%}"
    return Goal(asked, f"{before:.4g} to {after:.4g} ({drop:+.2%} dropped)", drop <= settings.max_drop)


def _size_goal(settings: OptimizeSettings, size: int, four: int | None) -> Goal | None:
    if settings.max_size is None:
        return None
    asked = f"weights of at most {figures.size(settings.max_size)}"
    if size <= settings.max_size:
        return Goal(asked, figures.size(size), True)
    way_out = ""
    if four is not None and four < size:
        end = ", which is too large as well." if four > settings.max_size else "."
        way_out = f"`--weights int4` comes to about {figures.size(four)} of weights{end}"
    return Goal(asked, figures.size(size), False, way_out)


def size_in_four_bits(
    settings: OptimizeSettings, target: Target, plans: Sequence[LayerPlan], size: int
) -> int | None:
    """About what weights of `size` bytes would come to with `--weights int4`; None where that is no choice.

    Args:
        settings: What was asked for.
        target: The processor.
        plans: What was decided for each linear.
        size: Bytes of all weights as decided.
    """
    decided = [plan for plan in plans if plan.considered]
    if not decided or settings.weights == "int4" or settings.format == "qdq" or 4 not in target.block_bits:
        return None
    four = Option("int4 blocks")
    saved = sum(
        plan.option.size(plan.channels, [plan.columns])
        - four.size(math.ceil(plan.channels / BLOCK) * BLOCK, [plan.columns])
        for plan in decided
    )
    return round(size - saved)

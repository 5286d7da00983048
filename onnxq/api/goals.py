"""What was asked for, and whether it was met."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import onnx_ir as ir

from onnxq.api.evaluate import Pace, score_with, time_pairs
from onnxq.api.records import weight_bytes
from onnxq.api.speed import Venue, speed_goal
from onnxq.api.stage import Stage
from onnxq.api.steering import Standing
from onnxq.recipe import OptimizeSettings
from onnxq.report import figures
from onnxq.report.measures import Fidelity, Goal, Timing
from onnxq.verify import Comparison

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


def judge_goals(
    settings: OptimizeSettings,
    fidelity: Sequence[Fidelity],
    timings: Sequence[Timing],
    venue: Venue,
    scores: tuple[float, float] | None,
    size: int,
) -> tuple[Goal, ...]:
    """Every goal, asked for or implied: what is slower than the original where it is to run is no result."""
    goals = (
        speed_goal(settings, timings, venue),
        _fidelity_goal(settings, fidelity),
        _score_goal(settings, scores),
        _size_goal(settings, size),
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


def _size_goal(settings: OptimizeSettings, size: int) -> Goal | None:
    if settings.max_size is None:
        return None
    asked = f"weights of at most {figures.size(settings.max_size)}"
    return Goal(asked, figures.size(size), size <= settings.max_size)

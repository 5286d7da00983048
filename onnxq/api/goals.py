"""What was asked for, whether it was met, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import onnx_ir as ir

from onnxq.api.evaluate import Pace, score_with, time_pairs
from onnxq.api.records import weight_bytes
from onnxq.api.stage import Stage
from onnxq.api.steering import Standing
from onnxq.planning.layer_plan import LayerPlan
from onnxq.recipe import OptimizeSettings
from onnxq.report import figures
from onnxq.report.measures import Fidelity, Goal, Timing
from onnxq.targets import Target, violations
from onnxq.verify import Comparison

_QUICK = (2, 0.5)
"""Processes for each model, and seconds in each, to see which way to go along the front."""


class Goals:
    """What a plan has to meet, measured on the model that came of it.

    Args:
        stage: The model as it came, and data.
        settings: The goals.

    Attributes:
        scores: What the user's function said last of the original and of a plan's model; None without one.
    """

    def __init__(self, stage: Stage, settings: OptimizeSettings) -> None:
        self._stage, self._settings = stage, settings
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
        pace = Pace(*_QUICK, stage.threads)
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
    scores: tuple[float, float] | None,
    size: int,
) -> tuple[Goal, ...]:
    """Every goal, asked for or implied: what is slower than the original on this machine is no result."""
    goals = []
    ratios = [timing.ratio for timing in timings if timing.ratio is not None]
    implied = 1.0 if settings.format == "kernel" and settings.target == "auto" else None
    wanted = settings.min_speedup if settings.min_speedup is not None else implied
    if wanted is not None and ratios:
        asked = f"speed at least {wanted:g}x" if settings.min_speedup is not None else "faster than fp32"
        goals.append(Goal(asked, f"{min(ratios):.2f}x", min(ratios) >= wanted))
    if settings.min_fidelity is not None and fidelity:
        worst = min(row.cosine_mean for row in fidelity)
        goals.append(
            Goal(
                f"mean cosine at least {settings.min_fidelity:g}",
                f"{worst:.6f}",
                worst >= settings.min_fidelity,
            )
        )
    if settings.max_drop is not None and scores is not None:
        before, after = scores
        drop = drop_of(before, after)
        goals.append(
            Goal(
                f"{settings.eval} drops by at most {settings.max_drop:.2%}",
                f"{before:.4g} to {after:.4g} ({drop:+.2%} dropped)",
                drop <= settings.max_drop,
            )
        )
    if settings.max_size is not None:
        asked = f"weights of at most {figures.size(settings.max_size)}"
        goals.append(Goal(asked, figures.size(size), size <= settings.max_size))
    return tuple(goals)


def next_steps(
    stage: Stage,
    plans: Sequence[LayerPlan],
    target: Target,
    settings: OptimizeSettings,
    model: ir.Model,
) -> tuple[str, ...]:
    """What a reader of the report may want to do, a sentence each."""
    hints = []
    if not stage.separate:
        hints.append(
            "The data could not be divided: fidelity was judged on what was calibrated with. Bring more."
        )
    elif len(stage.calibration) < 32:
        hints.append(f"Only {len(stage.calibration)} samples calibrated it; 64 or more make ranges steadier.")
    if stage.calibration.reader.preparation == "random":
        hints.append(
            "Random data says nothing about accuracy: calibrate with real samples before using this."
        )
    kept = sum(plan.form == "float" for plan in plans)
    if kept:
        hints.append(f"{kept} of {len(plans)} linears stay float; the table of layers says why.")
    # What is not the user's own list of passes was refused before, had it broken a rule.
    own = settings.passes is not None
    broken = [each for each in violations(model, target) if each.owner] if own else []
    if broken:
        hints.append(f"{target.name} forbids what your passes made, {len(broken)} times: first {broken[0]}.")
    if settings.passes is None and not plans:
        hints.append("No linear was found: `onnxq inspect` shows what onnxq sees in the model.")
    if not target.confirmable:
        hints.append(f"It is for {target.title}; the times and kernels told are of this CPU.")
    if target.weight_bits == 7:
        hints.append("Weights have 7 bits, since this processor's products saturate with 8.")
    return tuple(hints)

"""Which ranges static linears get: tried out on samples that the ranges were not taken from.

Extremes over few samples are exceeded by the next one, and after migration every channel reaches them, so
that clipping hurts more than before; wider ranges cost resolution. Which weighs more depends on the data, so
part of the calibration data is set aside to see: the samples that are least like the others, since what a
deployed model will meet is unlike all of them. Among ranges that do about equally well the widest is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from onnxq.api.checkpoints import Checkpoints
from onnxq.api.evaluate import measure_fidelities
from onnxq.api.stage import Stage
from onnxq.calibration import DataSource, collect
from onnxq.contract import Pass, names_wanted
from onnxq.passes.quantize.ranges import RangeMethod
from onnxq.passes.quantize.return_levels import BLIND
from onnxq.pipeline import apply_pass
from onnxq.recipe import OptimizeSettings, format_pass

TRIAL_SAMPLES = 16
"""Most samples that candidates are tried on."""


@dataclass(frozen=True)
class Ranges:
    """How static ranges are taken from statistics: see `onnxq.passes.quantize.ranges.choose_range`.

    Attributes:
        method: By what rule.
        margin: Part by which they are widened.
        given: Activations whose range is known better: name, low, high.
    """

    method: RangeMethod = "minmax"
    margin: float = 0.2
    given: tuple[tuple[str, float, float], ...] = ()

    @property
    def blind(self) -> float:
        """The margin for whatever takes no return levels."""
        return BLIND if self.method == "level" else self.margin

    def __str__(self) -> str:
        widened = f", widened by {self.margin:.0%}" if self.margin else ""
        return self.method + widened + (f", {len(self.given)} clipped" if self.given else "")


UNTRIED = Ranges()
"""Where nothing is tried: a margin that small calibration sets need and large ones hardly feel. With outlier
channels in float, 20 % instead of none cost MiniLM 10 % of its error (1 - cosine .00055 instead of .00050)
and raised its lowest cosine from .9973 to .9991."""

LEVELS = Ranges("level", margin=0.0)
"""A margin of its own for each tensor: none where its extremes are steady, a third where they vary."""

CANDIDATES: dict[str, tuple[Ranges, ...]] = {
    "fast": (),
    "balanced": (*(Ranges(margin=margin) for margin in (0.3, 0.2, 0.1)), LEVELS),
    "best": (
        *(Ranges(margin=margin) for margin in (0.5, 0.4, 0.3, 0.2, 0.15, 0.1)),
        LEVELS,
        *(Ranges("percentile", margin) for margin in (0.2, 0.1)),
        *(Ranges("mse", margin) for margin in (0.2, 0.1)),
    ),
}
"""What each effort tries, the most cautious first. Extremes without any margin are not among them: a trial on
data like the calibration's cannot show what they lose on other data."""

ABOUT_EQUAL_DB = 0.5
"""What the widest ranges may lose: about what 10 % more margin costs a model that nothing clips."""
Quantizing = Callable[[Ranges], Pass]


def choose_ranges(
    stage: Stage,
    model: ir.Model,
    settings: OptimizeSettings,
    quantizing: Quantizing,
    checkpoints: Checkpoints,
) -> Ranges:
    """The most cautious candidate that does about as well as the best, on samples that it did not see.

    Args:
        stage: The data.
        model: The model with all exact passes applied.
        settings: Effort and, if the user names one, the method, which alone is tried then.
        quantizing: The pass that quantizes `model` with given ranges.
        checkpoints: Where what was measured is kept.
    """
    candidates = [each for each in CANDIDATES[settings.effort] if settings.ranges in (None, each.method)]
    if len(candidates) < 2 or not stage.trial.separate:
        return candidates[0] if candidates else _untried(settings)
    passes, parts = {each: quantizing(each) for each in candidates}, stage.trial

    def measure() -> dict[str, float]:
        stage.progress("trying ranges", 0, 0)
        tried = _quantized(stage, model, parts.calibration, passes)
        trial = parts.held_out.select(parts.held_out.indices[:TRIAL_SAMPLES])
        found = measure_fidelities(
            model, tried, trial, stage.threads, partial(stage.progress, "trying ranges")
        )
        return {name: comparison.sqnr_db for name, comparison in found.items()}

    scores = checkpoints.figures("ranges", model, [format_pass(each) for each in passes.values()], measure)
    enough = max(scores.values()) - ABOUT_EQUAL_DB
    return next(each for each in candidates if scores[str(each)] >= enough)


def _untried(settings: OptimizeSettings) -> Ranges:
    return (
        LEVELS
        if settings.ranges == LEVELS.method
        else replace(UNTRIED, method=settings.ranges or UNTRIED.method)
    )


def _quantized(
    stage: Stage, model: ir.Model, source: DataSource, passes: dict[Ranges, Pass]
) -> dict[str, ir.Model]:
    """Each pass on `model`, with statistics of `source` that are gathered once for all of them."""
    statistics = collect(model, source, names_wanted(passes.values(), model), threads=stage.threads)
    return {str(ranges): apply_pass(model, each, statistics).model for ranges, each in passes.items()}

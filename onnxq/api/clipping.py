"""Token-wise clipping, as a stage of `optimize` and by itself in `apply`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import onnx_ir as ir

from onnxq.api.checkpoints import Checkpoints
from onnxq.api.ranges import TRIAL_SAMPLES, Ranges
from onnxq.api.stage import Stage
from onnxq.calibration import collect
from onnxq.contract import AnyPass
from onnxq.errors import UsageProblem
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass, run
from onnxq.planning.clipping import (
    Clipping,
    ClippingSettings,
    clipping_needs,
    coarse_clipping,
    fine_clipping,
)
from onnxq.recipe import format_pass

Clip = Literal["none", "coarse", "fine"]
"""No clipping; one share for all activations; then each end of each range by itself."""
_ENDS = ("low", "high")


def clip_ranges(
    stage: Stage,
    model: ir.Model,
    ranges: Ranges,
    quantizing: Callable[[Ranges], QuantizeLinears],
    checkpoints: Checkpoints,
) -> Ranges:
    """`ranges`, cut back or widened one by one where the model's output gains on samples they did not see.

    Args:
        stage: The data.
        model: The model with all exact passes applied.
        ranges: What to start from.
        quantizing: The pass that quantizes `model` with given ranges.
        checkpoints: Where the result is kept.
    """
    rounding = quantizing(ranges)
    if not stage.trial.separate:
        return ranges

    def search() -> dict[str, float]:
        found = _search(stage, model, rounding, "fine")[-1]
        return {
            f"{end} {name}": float(value)
            for name, both in found.ranges.items()
            for end, value in zip(_ENDS, both, strict=True)
        }

    found = checkpoints.figures("clipping", model, [format_pass(rounding)], search)
    names = sorted(key.partition(" ")[2] for key in found if key.startswith(_ENDS[0]))
    given = tuple((name, *(found[f"{end} {name}"] for end in _ENDS)) for name in names)
    return replace(ranges, given=given)  # type: ignore[arg-type]  # two ends each


def clip_passes(stage: Stage, passes: Sequence[AnyPass], how: Clip) -> tuple[tuple[AnyPass, ...], str]:
    """The same passes, ranges of the linears that one of them quantizes being clipped.

    Args:
        stage: The data; a part of the calibration samples is set apart to judge.
        passes: With `QuantizeLinears` among them; what is in front of it runs once more for this.
        how: How far clipping goes.

    Returns:
        The passes, and in words what was found.

    Raises:
        UsageProblem: No pass quantizes linears, or there are too few samples to set any apart.
    """
    place = next((index for index, each in enumerate(passes) if isinstance(each, QuantizeLinears)), None)
    if place is None:
        raise UsageProblem(
            "there are no ranges to clip: quantize-linears is not among the passes",
            hint='Add it: --pass "quantize-linears".',
            slug="nothing-to-clip",
        )
    if not stage.trial.separate:
        raise UsageProblem(
            f"{len(stage.calibration)} samples are too few to clip ranges by: some are set apart to judge",
            hint="Give more calibration samples, or leave clipping out.",
            slug="too-few-samples",
        )
    rounding = passes[place]
    assert isinstance(rounding, QuantizeLinears)
    model = run(stage.model, passes[:place], gather=stage.gather_exactly, verify="never").model
    found = _search(stage, model, rounding, how)
    given = tuple((name, float(low), float(high)) for name, (low, high) in sorted(found[-1].ranges.items()))
    clipped = replace(rounding, ranges=given)
    told = f"ranges clipped at a share of {found[0].alpha:g} of the tokens"
    told += ", then one by one" if how == "fine" else ""
    told += f": error of the outputs {found[0].before:.3g} to {found[-1].after:.3g}"
    return (*passes[:place], clipped, *passes[place + 1 :]), told


def _search(stage: Stage, model: ir.Model, rounding: QuantizeLinears, how: Clip) -> tuple[Clipping, ...]:
    """What each stage of clipping found, judged on samples that ranges were not taken from."""
    parts = stage.trial
    statistics = collect(model, parts.calibration, clipping_needs(rounding, model), threads=stage.threads)
    quantized = apply_pass(model, rounding, statistics).model
    settings = ClippingSettings(samples=TRIAL_SAMPLES, margin=rounding.margin, threads=stage.threads)
    told = partial(stage.progress, "clipping ranges")
    coarse = coarse_clipping(model, quantized, parts.held_out, statistics, settings, report=told)
    if how != "fine":
        return (coarse,)
    return coarse, fine_clipping(model, quantized, parts.held_out, coarse, settings, report=told)

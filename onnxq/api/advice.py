"""What a reader of the report may want to do next."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxq.api.speed import Venue, speed_hints
from onnxq.api.stage import Stage
from onnxq.planning.layer_plan import LayerPlan
from onnxq.recipe import OptimizeSettings
from onnxq.report.measures import Timing
from onnxq.runtime import count_quantized
from onnxq.targets import violations


def next_steps(
    stage: Stage,
    plans: Sequence[LayerPlan],
    venue: Venue,
    settings: OptimizeSettings,
    model: ir.Model,
    timings: Sequence[Timing],
) -> tuple[str, ...]:
    """What a reader of the report may want to do, a sentence each."""
    hints, target = [], venue.target
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
    if quantized := count_quantized(stage.model):
        hints.append(
            f"{quantized} products came quantized and stay as they are. Start from the float model; "
            "`onnxq inspect` says which of them run slowly."
        )
    elif settings.passes is None and not plans:
        hints.append("No linear was found: `onnxq inspect` shows what onnxq sees in the model.")
    hints += speed_hints(timings, venue)
    if target.weight_bits == 7:
        hints.append("Weights have 7 bits, since this processor's products saturate with 8.")
    return tuple(hints)

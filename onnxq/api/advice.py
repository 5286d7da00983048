"""What a reader of the report may want to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from onnxq.api import records
from onnxq.api.attempts import Outcome
from onnxq.api.speed import Venue, speed_hints
from onnxq.api.stage import Stage
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.recipe import OptimizeSettings
from onnxq.report.figures import size
from onnxq.report.measures import Timing
from onnxq.runtime import count_quantized
from onnxq.targets import violations
from onnxq.verify import Comparison

_HIDING = (
    "Attention",
    "EmbedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)
"""Fused operators that hold a norm, or the linears of queries, keys and values."""
FAR_DB = 10.0
"""Below this much signal over noise, noise has a third of the signal's amplitude."""


def next_steps(
    stage: Stage,
    outcome: Outcome,
    venue: Venue,
    settings: OptimizeSettings,
    timings: Sequence[Timing],
) -> tuple[str, ...]:
    """What a reader of the report may want to do, a sentence each."""
    hints, target, model = [], venue.target, outcome.model
    plans = () if outcome.plan is None else outcome.plan.layers
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
    hints += _fusion_hints(stage.model)
    hints += [*_fidelity_hints(outcome.fidelity), *_size_hints(stage.model, model)]
    hints += speed_hints(timings, venue)
    if target.weight_bits == 7:
        hints.append("Weights have 7 bits, since this processor's products saturate with 8.")
    return tuple(hints)


def _fusion_hints(model: ir.Model) -> Iterator[str]:
    """Whether ONNX Runtime's optimizer went over the model first, and hid norms and linears from onnxq."""
    fused = Counter(
        node.op_type for node in nodes(model) if node.domain == "com.microsoft" and node.op_type in _HIDING
    )
    if fused:
        kinds = ", ".join(f"{count} {kind}" for kind, count in fused.items())
        yield (
            f"ONNX Runtime's optimizer has been here: {kinds} hide norms and linears, which costs fidelity. "
            "Start from the model as it was exported."
        )


def _fidelity_hints(fidelity: Comparison) -> Iterator[str]:
    """Whether the output that is furthest off is too far off for most uses."""
    worst = fidelity.worst
    if worst is not None and worst.sqnr_db < FAR_DB:
        yield (
            f"{worst.name} is far from the original's: {worst.sqnr_db:.1f} dB over the noise. "
            "--effort best or --min-fidelity 0.99 looks for a closer one."
        )


def _size_hints(before: ir.Model, after: ir.Model) -> Iterator[str]:
    """Whether weights that linears shared made the file grow, each linear having its own now."""
    was, now = records.weight_bytes(before), records.weight_bytes(after)
    linears = [found for node in nodes(before) if isinstance(found := find_linear(node), Linear)]
    weights = len({found.root for found in linears})
    if now > was and weights < len(linears):
        yield (
            f"The weights grew from {size(was)} to {size(now)}: {len(linears)} linears have {weights} "
            "between them in the original, and one each when rounded for what each reads."
        )

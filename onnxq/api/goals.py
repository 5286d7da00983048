"""What was asked for, whether it was met, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.api.stage import Stage
from onnxq.planning.layer_plan import LayerPlan
from onnxq.recipe import OptimizeSettings
from onnxq.report.measures import Fidelity, Goal, Timing
from onnxq.targets import Target


def judge_goals(
    settings: OptimizeSettings,
    fidelity: Sequence[Fidelity],
    timings: Sequence[Timing],
    scores: tuple[float, float] | None,
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
        drop = (before - after) / abs(before) if before else before - after
        goals.append(
            Goal(
                f"{settings.eval} drops by at most {settings.max_drop:.2%}",
                f"{before:.4g} to {after:.4g} ({drop:+.2%} dropped)",
                drop <= settings.max_drop,
            )
        )
    return tuple(goals)


def next_steps(
    stage: Stage, plans: Sequence[LayerPlan], target: Target, settings: OptimizeSettings
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
    if settings.passes is None and not plans:
        hints.append("No linear was found: `onnxq inspect` shows what onnxq sees in the model.")
    if not target.confirmable:
        hints.append(f"It is for {target.title}; the times and kernels told are of this CPU.")
    if target.weight_bits == 7:
        hints.append("Weights have 7 bits, since this processor's products saturate with 8.")
    return tuple(hints)

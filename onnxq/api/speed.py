"""Whether a file is slower than the model that it came of, and for which target the times say so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxq.recipe import OptimizeSettings
from onnxq.report.measures import Goal, Timing
from onnxq.report.sheets import ratio_span
from onnxq.runtime import PROVIDERS, Machine
from onnxq.runtime.startup import failure_of
from onnxq.targets import Target, detect
from onnxq.targets.target import Provider

_WAYS: dict[Provider, str] = {
    "cpu": ": `onnxq bench --host USER@DEVICE` tells",
    "openvino": ": `onnxq bench --provider openvino` tells",
    "cuda": ": `onnxq bench --provider cuda` tells",
    "tensorrt": ": `onnxq bench --provider tensorrt` tells",
    "any": "",
}
"""How a file is timed where it is to run, by the provider that it is for."""


@dataclass(frozen=True)
class Venue:
    """What a file is timed with, and whether that is what the file is for.

    Attributes:
        target: What it is for.
        own: The target of the machine that times it, by name.
        provider: The execution provider that it is timed with, by its short name.
        failure: Why that is not the target's own; "" if it is, or if that is a matter of processors.
    """

    target: Target
    own: str
    provider: str = "cpu"
    failure: str = ""

    @classmethod
    def of(cls, target: Target, machine: Machine) -> Venue:
        """What `machine` times a file for `target` with: the target's own provider, if that starts."""
        own = detect(machine).name
        if target.provider in ("cpu", "any"):
            return cls(target, own)
        runtime = machine.runtime
        if runtime is None or PROVIDERS[target.provider] not in runtime.providers:
            return cls(target, own, failure=f"this onnxruntime has no provider {target.provider}")
        failure = failure_of(target.provider)
        return cls(target, own, "cpu" if failure else target.provider, failure)

    @property
    def speaks(self) -> bool:
        """Whether times taken with it are times of the target.

        Plain Q/DQ is for any runtime, this one included; int8 activations without a zero point are for
        accelerators.
        """
        if self.target.provider == "any":
            return self.target.confirmable
        return self.target.provider == self.provider and (
            self.provider != "cpu" or self.target.name == self.own
        )


def speed_goal(
    settings: OptimizeSettings, timings: Sequence[Timing], venue: Venue, faster: str = ""
) -> Goal | None:
    """The speed that was asked for; where none was, that of the original, if the times tell of the target.

    A speed that was asked for has to be reached as measured. Slower than the original is only what the rounds
    agree on.

    Args:
        settings: What was asked for.
        timings: Of the original and of the result, at each shape.
        venue: What they were taken with.
        faster: What may help where a speed that was asked for is missed.
    """
    compared = [row for row in timings if row.ratio is not None]
    if not compared:
        return None
    worst = min(compared, key=_ratio)
    if settings.min_speedup is not None:
        asked = f"speed at least {settings.min_speedup:g}x"
        met = _ratio(worst) >= settings.min_speedup
        return Goal(asked, told_ratio(worst), met, "" if met else faster)
    if not venue.speaks:
        return None
    slower = slower_ones(compared)
    if slower:
        floor = max(math.floor(9 * _ratio(worst)) / 10, 0.1)
        way_out = f"`--min-speedup {floor:g}` takes a slower file."
        return Goal("no slower than fp32", ", ".join(map(told_ratio, slower)), False, way_out)
    told = told_ratio(worst) + (", not resolved" if worst in unresolved_ones(compared) else "")
    return Goal("no slower than fp32", told, True)


def slower_ones(timings: Iterable[Timing]) -> list[Timing]:
    """Those that are slower than the original, as far as there were rounds to tell."""
    return [row for row in timings if row.verdict == "slower" or (not row.verdict and _ratio(row) < 1)]


def unresolved_ones(timings: Iterable[Timing]) -> list[Timing]:
    """Those that may be slower than the original or not."""
    return [
        row
        for row in timings
        if row.verdict == "not resolved" and min(_ratio(row), row.ratio_low or math.inf) < 1
    ]


def speed_hints(timings: Sequence[Timing], venue: Venue) -> list[str]:
    """What the times do not tell, a sentence or two each."""
    hints = []
    if not venue.speaks:
        slower = ", ".join(map(told_ratio, slower_ones(timings)))
        hints.append(
            f"It is for {venue.target.title}; the times and kernels told are of this machine's CPU "
            f"({venue.own}) and prove nothing there{_WAYS[venue.target.provider]}."
            + (f" Timed on the CPU since {venue.failure}." if venue.failure else "")
            + (f" Here it is slower than fp32: {slower}." if slower else "")
        )
    elif venue.provider != "cpu":
        hints.append(
            f"It is for {venue.target.title}, and was timed with the {venue.provider} provider; fidelity and "
            "kernels told are of the CPU."
        )
    hints.extend(
        f"At {row.shape} the rounds leave open whether it is slower than fp32 ({ratio_span(row)}); "
        "`onnxq bench` with more rounds tells."
        for row in unresolved_ones(timings)
    )
    return hints


def told_ratio(row: Timing) -> str:
    """How fast and where, e.g. ``"0.87x at input_ids=1x128"``."""
    return f"{_ratio(row):.2f}x" + (f" at {row.shape}" if row.shape else "")


def _ratio(row: Timing) -> float:
    return 1.0 if row.ratio is None else row.ratio

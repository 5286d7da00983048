"""What the oracle is told to look for, and what it says."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from onnxq.verify.compare import Comparison, OutputComparison


class Verdict(enum.Enum):
    """What can be said of a rewritten model. Only EQUAL may be reported as verified."""

    EQUAL = "equal"
    DIFFERENT = "different"
    CANNOT_JUDGE = "cannot judge"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and what it rests on.

    Attributes:
        verdict: The verdict.
        reason: Why, in words: the feed and output that differ, or what prevented judging.
        worst: The output that came out worst over all feeds; None if nothing ran.
        feeds: Number of feeds that both models ran.
        comparison: All outputs over all feeds.
    """

    verdict: Verdict
    reason: str
    worst: OutputComparison | None = None
    feeds: int = 0
    comparison: Comparison = field(default_factory=Comparison)


@dataclass(frozen=True)
class Budget:
    """How far a lossy rewrite may go, for every float output over all feeds.

    Attributes:
        cosine_min: Lowest cosine of any row.
        cosine_mean: Lowest mean cosine.
        sqnr_db: Lowest signal to quantization noise, in dB.
    """

    cosine_min: float = -1.0
    cosine_mean: float = -1.0
    sqnr_db: float = float("-inf")


@dataclass(frozen=True)
class OracleSettings:
    """How hard the oracle looks.

    Attributes:
        seeds: Random feeds of each size.
        seed: The first seed.
        sizes: How many assignments of sizes to the open dimensions.
        corners: Whether to add corner feeds.
        factor: Roundings that a reassociating rewrite may be off by, at the size of the largest output.
        noise_margin: How many times the original's own noise it may be off by.
        optimised: Whether the rewritten model must also load and run with the runtime's optimisations on.
        isolated: Whether to run in a worker process, which a crash of the runtime ends without ending this
            one.
        timeout: Seconds that one call to the worker may take.
    """

    seeds: int = 4
    seed: int = 0
    sizes: int = 2
    corners: bool = True
    factor: float = 16.0
    noise_margin: float = 4.0
    optimised: bool = True
    isolated: bool = True
    timeout: float = 300.0

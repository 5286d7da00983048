"""What a pass did, and what a pipeline did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.contract import Change, Contract, Reject
from onnxq.verify import Judgement, Verdict


@dataclass(frozen=True)
class PassResult:
    """One pass on one model.

    Attributes:
        name: The pass.
        contract: What it promised.
        model: The rewritten model; the one that was given if nothing changed or the pass was rolled back.
        changes: The journal of what was changed, in order; empty if nothing was.
        rejects: Near matches left alone and why, once each, in the order of the graph.
        settled: False if the pass was stopped because it still found something after very many rewrites.
        skipped: Why the pass was not run at all; empty if it was.
        rolled_back: Why its changes were undone; empty if they stand.
        judgement: The verdict on this pass alone, where it was asked for.
        seconds: Time spent matching and rewriting.
    """

    name: str
    contract: Contract
    model: ir.Model
    changes: tuple[Change, ...] = ()
    rejects: tuple[Reject, ...] = ()
    settled: bool = True
    skipped: str = ""
    rolled_back: str = ""
    judgement: Judgement | None = None
    seconds: float = 0.0

    @property
    def modified(self) -> bool:
        """Whether `model` is another one than was given; read off the journal, not told by the pass."""
        return bool(self.changes) and not self.rolled_back


@dataclass(frozen=True)
class PipelineResult:
    """All passes on one model.

    Attributes:
        model: The final model.
        results: One entry for each pass, in order.
        journal: The changes of every pass that stands.
        timings: Seconds for "rewrite", "statistics" and "verify".
        judgement: The verdict on the exact passes together, the worst if they were judged in stretches; None
            if nothing was judged.
    """

    model: ir.Model
    results: tuple[PassResult, ...]
    journal: tuple[Change, ...]
    timings: Mapping[str, float] = field(default_factory=dict)
    judgement: Judgement | None = None

    @property
    def rolled_back(self) -> Mapping[str, str]:
        """Why passes were rolled back, by name of the pass."""
        return {result.name: result.rolled_back for result in self.results if result.rolled_back}

    @property
    def verified(self) -> bool:
        """Whether the exact passes were judged, and judged equal."""
        return self.judgement is not None and self.judgement.verdict is Verdict.EQUAL


@dataclass(frozen=True)
class Step:
    """What the pipeline is about to do, for a progress display.

    Attributes:
        number: Which pass, from 1; `total` + 1 for the verification at the end.
        total: How many passes there are.
        name: Name of the pass, or "" at the end.
        action: "statistics", "rewrite" or "verify".
    """

    number: int
    total: int
    name: str
    action: str

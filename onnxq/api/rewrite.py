"""Chosen passes and nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.api import records
from onnxq.api.clipping import Clip, clip_passes
from onnxq.api.stage import Progress, Stage, silent, stage_of
from onnxq.contract import AnyPass
from onnxq.errors import UsageProblem
from onnxq.files import save
from onnxq.interop import Acceptable, as_model
from onnxq.pipeline import Step, Verify, run
from onnxq.recipe import DataSettings
from onnxq.report.results import ApplyReport


@dataclass(frozen=True)
class ApplyResult:
    """What `apply` gives back: the model, and what each pass did to it."""

    model: ir.Model
    report: ApplyReport

    def save(self, path: str | Path) -> None:
        """Write the model, whole or not at all."""
        save(self.model, path)


def apply(
    model: Acceptable,
    passes: Sequence[AnyPass],
    *,
    calibration: Any = None,
    data: DataSettings | None = None,
    clip: Clip = "none",
    verify: Verify = "each",
    threads: int | None = None,
    progress: Progress | None = None,
) -> ApplyResult:
    """Run passes in the order given, each checked against its promise and rolled back if it breaks it.

    Args:
        model: As for `optimize`. Never changed.
        passes: Passes of onnxq, passes of your own, or `onnxq.interop.GraphSurgeonPass`.
        calibration: Data for passes that need statistics; all of it is used. Such passes are skipped without.
        data: How the data is read.
        clip: Whether ranges of `QuantizeLinears` are clipped token-wise, judged by the model's output on a
            part of the data: "coarse" for one share of the tokens, "fine" for each end of each range besides.
        verify: When numbers are compared: after each pass, at the end, never.
        threads: Threads of the runtime; None for all cores.
        progress: Called with a stage in words, steps done and steps in all.

    Raises:
        UsageProblem: Clipping is asked for without data, with too little of it, or without ranges to clip.
    """
    started = time.perf_counter()
    told = progress or silent
    gather, clipping = None, ""
    if calibration is None:
        if clip != "none":
            raise UsageProblem(
                "ranges are clipped by what they do to outputs on data, and there is none",
                hint="Give calibration data: --calib.",
                slug="no-data",
            )
        opened = as_model(model)
    else:
        stage = Stage.undivided(model, calibration, data, threads=threads, progress=progress)
        opened, gather = stage.model, stage.gather_exactly
        if clip != "none":
            passes, clipping = clip_passes(stage, passes, clip)

    def step(step: Step) -> None:
        told(*stage_of(step))

    result = run(opened, passes, gather=gather, verify=verify, progress=step)
    name = records.name_of(model, opened)
    report = ApplyReport(
        before=records.model_record(opened, name),
        after=records.model_record(result.model, name),
        passes=records.pass_rows(passes, result),
        journal=records.journal_rows(result.journal),
        verdict=result.judgement.verdict.value if result.judgement is not None else "not checked",
        seconds=time.perf_counter() - started,
        exact=records.equality_record(result),
        clipping=clipping,
    )
    return ApplyResult(result.model, report)

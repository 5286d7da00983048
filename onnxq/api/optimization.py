"""The whole way: clean, migrate, plan, quantize, confirm, measure, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.api import records
from onnxq.api.evaluate import measure_fidelity, score_with, time_pair
from onnxq.api.goals import judge_goals, next_steps
from onnxq.api.layers import channel_pictures, layer_rows
from onnxq.api.ranges import Ranges, choose_ranges
from onnxq.api.stage import Progress, Stage
from onnxq.contract import AnyPass
from onnxq.errors import VerificationFailed
from onnxq.files import save
from onnxq.interop import Acceptable
from onnxq.passes.clean import cleaning
from onnxq.passes.layout.fuse_gelu import FuseGelu
from onnxq.passes.layout.move_nan_guard import MoveNanGuard
from onnxq.passes.layout.sum_before_norm import SumBeforeNorm
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.quantize.embeddings import QuantizeEmbeddings
from onnxq.passes.quantize.linears import Form, QuantizeLinears
from onnxq.pipeline import PipelineResult, run
from onnxq.planning.layers import LayerPlan, PlanSettings, names_of, plan_layers, relax
from onnxq.recipe import OptimizeSettings, format_recipe, parse_pass
from onnxq.report.results import Report
from onnxq.runtime import (
    confirm_kernels,
    expected_kernels,
    kernels_of,
    optimized_graph,
    read_machine,
)
from onnxq.statistics import Statistic
from onnxq.targets import Target, detect, find
from onnxq.verify import Comparison, OracleSettings

_ROUNDS = {"fast": (2, 0.5), "balanced": (3, 1.0), "best": (5, 1.5)}
"""Processes for each model, and seconds in each, by effort."""
_RELAXATIONS = (1, 2, 4, 8, 16)
"""How many linears go back to float, round after round, when fidelity is missed."""


@dataclass(frozen=True)
class OptimizeResult:
    """What `optimize` gives back: a model in memory, and everything known of it.

    Attributes:
        model: The rewritten model.
        report: Figures and reasons; `Report.goals` says whether what was asked for was met.
    """

    model: ir.Model
    report: Report

    @property
    def met(self) -> bool:
        """Whether every goal was met."""
        return all(goal.met for goal in self.report.goals)

    def save(self, path: str | Path) -> None:
        """Write the model, whole or not at all."""
        save(self.model, path)


@dataclass(frozen=True)
class _Outcome:
    """One candidate: the model, how it came to be, and how close it is."""

    model: ir.Model
    passes: tuple[AnyPass, ...]
    result: PipelineResult
    plans: tuple[LayerPlan, ...]
    fidelity: Comparison


def optimize(
    model: Acceptable,
    calibration: Any,
    *,
    settings: OptimizeSettings | None = None,
    progress: Progress | None = None,
) -> OptimizeResult:
    """Make a model faster by exact rewrites and INT8, and measure what that costs.

    Args:
        model: A path, a `ModelProto`, an `onnx_ir.Model`, what `torch.onnx.export` returns, or a
            graphsurgeon graph. Never changed.
        calibration: Data, as `onnxq.calibration.open_data` takes it. A fixed part is held out to judge on.
        settings: Everything else.
        progress: Called with a stage in words, steps done and steps in all.

    Raises:
        OnnxqError: See `onnxq.errors`; each class says what is wrong.
    """
    started = time.perf_counter()
    settings = settings or OptimizeSettings()
    target = detect(read_machine()) if settings.target == "auto" else find(settings.target)
    if settings.eval is not None:
        score_with(settings.eval)  # a name that is wrong is told before the work, not after it
    stage = Stage.open(
        model,
        calibration,
        settings.data,
        threads=records.usable_threads(settings.threads),
        seed=settings.seed,
        progress=progress,
    )
    if settings.passes is not None:  # whatever ranges they are to choose
        stage = stage.watching(Statistic.HISTOGRAM)
    exact_passes = _exact_passes(target, settings)
    exact = run(
        stage.model,
        exact_passes,
        gather=stage.gather,
        verify=settings.verify,
        progress=stage.step,
        oracle=_oracle(settings),
    )
    outcome = _quantize(stage, exact, target, settings)
    kernels = _confirm(outcome.model)
    return OptimizeResult(
        outcome.model, _report(stage, settings, (exact_passes, exact), outcome, kernels, target, started)
    )


def _oracle(settings: OptimizeSettings) -> OracleSettings:
    return OracleSettings(seeds=1, sizes=1 if settings.effort == "fast" else 2, seed=settings.seed)


def _exact_passes(target: Target, settings: OptimizeSettings) -> tuple[AnyPass, ...]:
    if settings.passes is not None:
        return tuple(parse_pass(text) for text in settings.passes)
    return (*cleaning(), ShiftScale(), InsertScale(), *_layout(_form(target, settings)))


def _quantize(stage: Stage, exact: PipelineResult, target: Target, settings: OptimizeSettings) -> _Outcome:
    """Plan and quantize; while fidelity is missed, give the worst linears back to float."""
    if settings.passes is not None:  # the user's own list is the whole of it
        fidelity = _fidelity(stage, exact.model)
        return _Outcome(exact.model, (), dataclasses.replace(exact, results=(), journal=()), (), fidelity)
    ranges = choose_ranges(stage, exact.model, target, settings)
    stage = stage.watching(Statistic.HISTOGRAM) if ranges.method != "minmax" else stage
    stage.progress("planning", 0, 0)
    chosen = PlanSettings(
        target=target,
        method=ranges.method,
        margin=ranges.margin,
        keep_float=settings.keep_float,
        allow_per_token=_form(target, settings) == "kernel",
        rows=256 if settings.effort == "fast" else 1024,
        seed=settings.seed,
    )
    plans = plan_layers(exact.model, stage.calibration, stage.gather(exact.model, {}), chosen)
    outcome = _attempt(stage, exact, plans, ranges, target, settings)
    for count in _RELAXATIONS:
        if not _misses(outcome.fidelity, settings) or not names_of(plans, "int8 static"):
            break
        plans = relax(plans, count)
        outcome = _attempt(stage, exact, plans, ranges, target, settings)
    return outcome


def _attempt(
    stage: Stage,
    exact: PipelineResult,
    plans: tuple[LayerPlan, ...],
    ranges: Ranges,
    target: Target,
    settings: OptimizeSettings,
) -> _Outcome:
    passes: tuple[AnyPass, ...] = (
        QuantizeLinears(
            form=_form(target, settings),
            method=ranges.method,
            margin=ranges.margin,
            weight_bits=target.weight_bits,
            skip=names_of(plans, "float"),
            per_token=names_of(plans, "int8 per-token"),
        ),
        QuantizeEmbeddings(skip=settings.keep_float),
    )
    result = run(
        exact.model,
        passes,
        gather=stage.gather,
        verify="never" if settings.verify == "never" else "end",
        progress=stage.step,
        oracle=_oracle(settings),
    )
    return _Outcome(result.model, passes, result, plans, _fidelity(stage, result.model))


def _form(target: Target, settings: OptimizeSettings) -> Form:
    """Plain Q/DQ if the user or the target wants it."""
    return "qdq" if "qdq" in (settings.format, target.format) else "kernel"


def _layout(form: Form) -> tuple[AnyPass, ...]:
    """The spellings that ONNX Runtime executes fastest; with plain Q/DQ only those in standard operators.

    They come after migration, which reads residuals as exporters write them, and before rounding, whose steps
    would blow up what a reassociation changes in the last bit.
    """
    own: tuple[AnyPass, ...] = (FuseGelu(),) if form == "kernel" else ()
    return (*own, MoveNanGuard(), SumBeforeNorm())


def _fidelity(stage: Stage, candidate: ir.Model) -> Comparison:
    return measure_fidelity(
        stage.model,
        candidate,
        stage.held_out,
        stage.threads,
        lambda done, total: stage.progress("judging on held-out data", done, total),
    )


def _misses(fidelity: Comparison, settings: OptimizeSettings) -> bool:
    if settings.min_fidelity is None:
        return False
    return any(output.cosine_mean < settings.min_fidelity for output in fidelity.outputs.values())


def _confirm(model: ir.Model) -> dict[str, int]:
    """The low-precision kernels that the runtime's own graph holds.

    Raises:
        VerificationFailed: A quantized product did not reach its kernel, which would make it slower than
            float.
    """
    expected = expected_kernels(model)
    optimized = optimized_graph(model)
    lost = [landing for landing in confirm_kernels(expected, optimized) if not landing.landed]
    if lost:
        names = ", ".join(f"{landing.node} ({landing.reason or 'no reason found'})" for landing in lost[:5])
        raise VerificationFailed(
            f"{len(lost)} of {len(expected)} quantized products miss their kernel: {names}",
            hint="This is a bug in onnxq. `--keep-float NODE` leaves a node alone.",
            slug="kernel-missed",
        )
    return kernels_of(optimized)


def _report(
    stage: Stage,
    settings: OptimizeSettings,
    exact: tuple[Sequence[AnyPass], PipelineResult],
    outcome: _Outcome,
    kernels: dict[str, int],
    target: Target,
    started: float,
) -> Report:
    stage.progress("timing", 0, 0)
    rounds, seconds = _ROUNDS[settings.effort]
    latency, shapes = time_pair(
        stage.model, outcome.model, stage.held_out, settings.shapes, stage.threads, rounds, seconds
    )
    timings = records.timing_rows(latency, records.shape_label(shapes))
    before = stage.gather(stage.model, {})
    after = stage.gather(exact[1].model, {})
    scores = None
    if settings.eval is not None:
        score = score_with(settings.eval)
        scores = score(stage.model), score(outcome.model)
    fidelity = records.fidelity_rows(outcome.fidelity)
    name = records.name_of(stage.given, stage.model)
    return Report(
        before=records.model_record(stage.model, name),
        after=records.model_record(outcome.model, name),
        machine=records.machine_record(stage.threads),
        data=records.data_record(stage.calibration, stage.held_out),
        fidelity=fidelity,
        latency=timings,
        kernels=kernels,
        layers=layer_rows(stage.model, outcome.plans, before, after),
        passes=(
            *records.pass_rows(*exact),
            *records.pass_rows(outcome.passes, outcome.result),
        ),
        journal=records.journal_rows((*exact[1].journal, *outcome.result.journal)),
        goals=judge_goals(settings, fidelity, timings, scores),
        hints=next_steps(stage, outcome.plans, target, settings),
        channels=channel_pictures(stage.model, outcome.plans, before, after),
        recipe=format_recipe(settings),
        seconds=time.perf_counter() - started,
        exact=records.equality_record(exact[1], outcome.result),
    )

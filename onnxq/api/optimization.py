"""The whole way: clean, migrate, plan, quantize, confirm, measure, report."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.api import records
from onnxq.api.advice import next_steps
from onnxq.api.attempts import Attempts, Outcome
from onnxq.api.checkpoints import Checkpoints
from onnxq.api.evaluate import Pace, score_with, time_pairs
from onnxq.api.goals import Reached, judge_goals, size_in_four_bits
from onnxq.api.layers import channel_pictures, front_rows, layer_rows
from onnxq.api.opening import Opening, write_opening
from onnxq.api.speed import Venue
from onnxq.api.stage import Progress, Stage, watched_values
from onnxq.errors import VerificationFailed
from onnxq.files import save
from onnxq.interop import Acceptable
from onnxq.ir.labels import is_named, tell_apart
from onnxq.recipe import OptimizeSettings, format_recipe, parse_pass
from onnxq.recipe.typed import build
from onnxq.report.results import Report
from onnxq.runtime import (
    Machine,
    confirm_kernels,
    expected_kernels,
    kernels_of,
    optimized_graph,
    read_machine,
)
from onnxq.runtime.feeds import ports_of, shapes_for
from onnxq.runtime.latency import STEADY_ROUNDS
from onnxq.targets import Target, detect, find, violations
from onnxq.targets.costs import KernelCosts
from onnxq.targets.measured import costs_of

_ROUNDS = {"fast": (2, 0.5), "balanced": (3, 1.0), "best": (5, 1.5)}
"""Processes for each model, and seconds in each, by effort."""
_PATIENCE = {"fast": 20.0, "balanced": 60.0, "best": 300.0}
"""Seconds, at each shape, for more of them where it is open whether the result is slower."""


@dataclass(frozen=True)
class OptimizeResult:
    """What `optimize` gives back: a model in memory, and everything known of it.

    Attributes:
        model: The rewritten model.
        report: Figures and reasons; `Report.goals` says whether what was asked for was met.
        opening: What the runtime has to be told when it opens the model.
    """

    model: ir.Model
    report: Report
    opening: Opening = field(default_factory=Opening)

    @property
    def met(self) -> bool:
        """Whether every goal was met."""
        return all(goal.met for goal in self.report.goals)

    def save(self, path: str | Path) -> None:
        """Write the model, whole or not at all, and beside it how it has to be opened, if that matters."""
        save(self.model, path)
        write_opening(self.opening, path)


def optimize(
    model: Acceptable,
    calibration: Any,
    *,
    settings: OptimizeSettings | None = None,
    progress: Progress | None = None,
    work_dir: str | Path | None = None,
) -> OptimizeResult:
    """Make a model faster by exact rewrites and INT8, and measure what that costs.

    Args:
        model: A path, a `ModelProto`, an `onnx_ir.Model`, what `torch.onnx.export` returns, or a
            graphsurgeon graph. Never changed.
        calibration: Data, as `onnxq.calibration.open_data` takes it. A fixed part is held out to judge on.
        settings: Everything else.
        progress: Called with a stage in words, steps done and steps in all.
        work_dir: A folder for intermediate results, which take as much room as the model several times over:
            a run that was killed goes on from there when it is started again. None keeps nothing.

    Raises:
        OnnxqError: See `onnxq.errors`; each class says what is wrong.
    """
    started = time.perf_counter()
    settings = settings or OptimizeSettings()
    threads = records.usable_threads(settings.threads)
    machine = read_machine()
    target = _target(settings, machine)
    if settings.eval is not None:
        score_with(settings.eval)  # a name that is wrong is told before the work, not after it
    stage = Stage.open(
        model,
        calibration,
        settings.data,
        threads=threads,
        seed=settings.seed,
        progress=progress,
    )
    for case in settings.cases:
        shapes_for(ports_of(stage.model), case)  # so is a shape that fits no input
    venue = Venue.of(target, machine)
    folder = None if work_dir is None else Path(work_dir)
    checkpoints = Checkpoints(folder, (stage.calibration.fingerprint, settings.verify, str(settings.seed)))
    if settings.passes is not None:
        passes = tuple(parse_pass(text) for text in settings.passes)
        outcome = Attempts(stage, target, settings, checkpoints).own_passes(passes)
    else:
        stage, kept = _told_apart(stage, settings.keep_float)
        settings_apart = replace(settings, keep_float=kept)
        outcome = Attempts(stage, target, settings_apart, checkpoints, venue.provider).best()
        check_rules(outcome.model, target, stage.model)
    kernels = confirm_landings(outcome.model, target, stage.model)
    report = _report(stage, settings, outcome, kernels, venue, started)
    return OptimizeResult(outcome.model, report, Opening.of(outcome.model, target))


def _target(settings: OptimizeSettings, machine: Machine) -> Target:
    """The processor to optimize for; what its kernels cost is measured if it is this one."""
    own = detect(machine)
    target = own if settings.target == "auto" else find(settings.target)
    if settings.costs:
        return replace(target, costs=build(KernelCosts, settings.costs, "costs"))
    return replace(target, costs=costs_of(machine)) if target is own else target


def _told_apart(stage: Stage, keep_float: tuple[str, ...]) -> tuple[Stage, tuple[str, ...]]:
    """A model whose nodes differ in name, since plans go by names; and what is to stay float by those."""
    model, renamed = tell_apart(stage.model)
    kept = [new for new, old in renamed.items() if is_named(old, keep_float)]
    return replace(stage, model=model), (*keep_float, *kept)


def check_rules(model: ir.Model, target: Target, given: ir.Model) -> None:
    """Refuse what onnxq itself should never have written for `target`; what came with the model may stay.

    Where `given`, the model as it came, has nodes of a forbidden form, a pass may have spelled one anew.

    Raises:
        VerificationFailed: A pass made a node in a form that the target forbids.
    """
    came = {each.slug for each in violations(given, target)}
    broken = [each for each in violations(model, target) if each.owner and each.slug not in came]
    if broken:
        raise VerificationFailed(
            f"{len(broken)} nodes break the rules of {target.name}: {'; '.join(map(str, broken[:5]))}",
            hint="This is a bug in onnxq. `--keep-float NODE` leaves a node alone.",
            slug="forbidden-form",
        )


def confirm_landings(model: ir.Model, target: Target, given: ir.Model) -> dict[str, int]:
    """The low-precision kernels that the runtime's own graph holds.

    What the runtime's processor lacks of what is meant for another runtime is no failure, nor is a product
    that was quantized in the model as it was `given`.

    Raises:
        VerificationFailed: A quantized product did not reach its kernel, which would make it slower than
            float.
    """
    came = expected_kernels(given)  # cleaning leaves them their names, or what they give
    named, giving = {each.node for each in came if each.node}, {each.output for each in came}
    expected = [
        each for each in expected_kernels(model) if each.node not in named and each.output not in giving
    ]
    optimized = optimized_graph(model)
    lost = [landing for landing in confirm_kernels(expected, optimized) if not landing.landed]
    if lost and target.confirmable:
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
    outcome: Outcome,
    kernels: dict[str, int],
    venue: Venue,
    started: float,
) -> Report:
    stage.progress("timing", 0, 0)
    patience = _PATIENCE[settings.effort]
    pace = Pace(*_ROUNDS[settings.effort], stage.threads, STEADY_ROUNDS, venue.provider, patience)
    timed = time_pairs(stage.model, outcome.model, stage.held_out, settings.cases, pace)
    timings = tuple(
        row for shapes, latency in timed for row in records.timing_rows(latency, records.shape_label(shapes))
    )
    after = stage.gather(outcome.exact, {})  # first, while it is remembered
    before = outcome.before
    if before is None or not watched_values(stage.model) <= {*before, *before.skipped}:
        before = stage.gather(stage.model, {})
    scores = outcome.scores
    if scores is None and settings.eval is not None:
        score = score_with(settings.eval)
        scores = score(stage.model), score(outcome.model)
    fidelity = records.fidelity_rows(outcome.fidelity)
    plans = () if outcome.plan is None else outcome.plan.layers
    size = records.weight_bytes(outcome.model)
    four = size_in_four_bits(settings, venue.target, plans, size)
    reached = Reached(fidelity, timings, scores, size, four)
    name = records.name_of(stage.given, stage.model)
    return Report(
        before=records.model_record(stage.model, name),
        after=records.model_record(outcome.model, name),
        machine=records.machine_record(stage.threads),
        data=records.data_record(stage.calibration, stage.held_out),
        fidelity=fidelity,
        latency=timings,
        kernels=kernels,
        layers=layer_rows(stage.model, outcome.exact, plans, before, after, outcome.effects),
        refinements=outcome.refinements,
        front=front_rows(outcome.plan),
        passes=tuple(row for passes, result in outcome.runs for row in records.pass_rows(passes, result)),
        journal=records.journal_rows(change for _, result in outcome.runs for change in result.journal),
        goals=judge_goals(settings, reached, venue),
        hints=next_steps(stage, outcome, venue, settings, timings),
        channels=channel_pictures(stage.model, outcome.exact, plans, before, after),
        recipe=format_recipe(replace(settings, target=venue.target.name, costs=asdict(venue.target.costs))),
        seconds=time.perf_counter() - started,
        provider=venue.provider,
        target=venue.target.name,
        exact=records.equality_record(*(result for _, result in outcome.runs)),
    )

"""From a plan to a quantized model and what it lost: carried out, judged, and if need be the next one.

exact base      clean, move shift and scale out of norms
plan            which form each linear takes, from rows of the base
prepare         split channels, even them out, re-spell: what the plan asks of the exact passes
refine          in the best effort: other ranges, scales, codes, each kept where held-out samples gain
quantize        round; products that stay float are left alone
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import onnx_ir as ir

from onnxq.api.checkpoints import Checkpoints
from onnxq.api.clipping import clip_ranges
from onnxq.api.effects import measure_decided, read_together
from onnxq.api.emission import Emission
from onnxq.api.evaluate import measure_effects, measure_fidelity
from onnxq.api.execution import Execution, Run, gather_once
from onnxq.api.goals import Goals
from onnxq.api.learned import Learning
from onnxq.api.ranges import UNTRIED, Ranges, choose_ranges
from onnxq.api.refinement import FITTINGS, Candidate, Refinement, Trial, refine
from onnxq.api.stage import Stage
from onnxq.api.steering import Standing, settle
from onnxq.contract import AnyPass
from onnxq.passes.clean import cleaning
from onnxq.pipeline import apply_pass
from onnxq.planning.layers import Plan, plan_layers
from onnxq.planning.rows import rows_at
from onnxq.recipe import OptimizeSettings
from onnxq.report.rows import RefinementRow
from onnxq.statistics import Statistic, Statistics
from onnxq.targets import Target
from onnxq.verify import Comparison

CLEARLY_DB = 0.5
"""What a plan that evens channels out has to be better by: it has more nodes, and few samples tell."""
EFFECT_SAMPLES = {"fast": 0, "balanced": 4, "best": 8}
"""Samples on which the effect of single layers on the output is measured, by effort."""
HIDDEN_DB = 60.0
"""Signal over what a bound of masks does to the output, from which on that drowns in any rounding."""
HIDING_SAMPLES = 8
"""Samples that tell."""
_REASONS = {
    Standing.TOO_FAR: "the fidelity asked for was missed without it",
    Standing.TOO_COSTLY: "the speed or size asked for was missed without it",
}


@dataclass(frozen=True)
class Outcome:
    """One candidate: the model, how it came to be, and how close it is.

    Attributes:
        model: The quantized model.
        exact: The model in front of all rounding.
        runs: The passes that ran, in order, with what came of them.
        plan: What was decided; None where the user's own passes ran.
        fidelity: On held-out data, against the model as it came.
        ranges: Of the activations.
        refinements: What was tried on the planned model, and what came of it.
        scores: What the user's function says of the original and of the model; None without one.
        before: Statistics of the model as it came, only tidied; None if none were gathered on the way.
        effects: What linears do to the output alone, in dB, by name; empty where that was not measured.
    """

    model: ir.Model
    exact: ir.Model
    runs: tuple[Run, ...]
    plan: Plan | None
    fidelity: Comparison
    ranges: Ranges = UNTRIED
    refinements: tuple[RefinementRow, ...] = ()
    scores: tuple[float, float] | None = None
    before: Statistics | None = None
    effects: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Attempts:
    """Everything that plans are carried out with.

    Attributes:
        stage: Model and data.
        target: The processor.
        settings: What the user wants.
        checkpoints: Where what takes long is kept.
        provider: Execution provider that speed is measured with.
        hides: Whether masks may get a bound; None as long as nobody asked.
    """

    stage: Stage
    target: Target
    settings: OptimizeSettings
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    provider: str = "cpu"
    hides: bool | None = field(default=None, init=False)

    @property
    def emission(self) -> Emission:
        """Which passes these ask for."""
        return Emission(self.target, self.settings)

    @cached_property
    def execution(self) -> Execution:
        """How passes are run."""
        return Execution(self.stage, self.settings, self.checkpoints)

    def best(self) -> Outcome:
        """The first plan, or the nearest one on the front that meets the goals which the first one misses."""
        base_passes = (*self.emission.opening(), *cleaning(), *self.emission.migrating())
        watching, on_the_way = self.stage.watching(Statistic.ROWS), []

        def gather(state: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
            on_the_way.append(found := watching.gather(state, wanted))
            return found

        base = (
            base_passes,
            self.execution.run(self.stage.model, base_passes, gather_once(base_passes, gather)),
        )
        self.stage.progress("planning", 0, 0)
        outcome = self._first(base, watching.gather(base[1].model, {}))
        # Cleaning changes no value that it leaves there, so that the first state tells of the original.
        before = on_the_way[0].without({Statistic.ROWS}) if on_the_way else None
        on_the_way.clear()
        outcome = replace(outcome, before=before)
        outcome = self._refined(self._settled(outcome, base))
        if self.settings.effort != "best" or outcome.plan is None:
            return outcome
        rounding = self.emission.trial_linears(outcome.plan, outcome.ranges)
        effects = measure_decided(self.stage, outcome.exact, outcome.plan.layers, rounding)
        return replace(outcome, effects=effects)

    def _settled(self, outcome: Outcome, base: Run) -> Outcome:
        """The first outcome, or that of the nearest plan on the front that meets the goals."""
        plan = outcome.plan
        if plan is None or not plan.front:
            return outcome
        goals, standing = Goals(self.stage, self.settings, self.provider), Standing.FITS

        def attempt(place: int) -> Standing:
            nonlocal outcome, standing
            if outcome.plan is not None and place != outcome.plan.place:
                carried = self._carry_out(plan.at(place, _REASONS[standing]), base)
                outcome = replace(carried, before=outcome.before)
            standing = goals.standing(outcome.model, outcome.fidelity)
            outcome = replace(outcome, scores=goals.scores)
            return standing

        settle(plan.place, len(plan.front) - 1, attempt)
        return outcome

    def _first(self, base: Run, statistics: Statistics) -> Outcome:
        """The plan that balances error and cost, whatever the goals are.

        A second one, in which a Mul may even channels out, is tried in the best effort, or where a Mul costs
        nothing. Evened out, every channel reaches the end of the range, and data unlike the calibration's
        clips everywhere: the output of a vision transformer was 33 to 36 dB over the noise on other
        photographs with such Muls and 39 without, though held-out crops of the same photographs liked them
        better. MiniLM's was 27 with them and 24 without. Held-out samples decide; those have to be as unlike
        the rest as what the model will meet.
        """
        model = base[1].model
        timed = () if self.emission.counts_bytes else self.settings.cases
        wished = self.emission.plan_settings(rows_at(model, timed, self.stage.threads))
        choices = (False, True) if self.emission.evens_out else (False,)
        kinds = [replace(wished, insert_nodes=each) for each in choices]
        plans = [plan_layers(model, statistics, kind) for kind in kinds]
        if EFFECT_SAMPLES[self.settings.effort] and "int8 static" in wished.forms:
            effects = self._effects(model, plans[0], statistics)
            plans = [plan.weighed(effects, kind) for plan, kind in zip(plans, kinds, strict=True)]
        outcome = self._carry_out(plans[0], base)
        for plan in plans[1:]:
            evened = self._carry_out(plan, base) if plan.scaled else outcome
            if evened.fidelity.sqnr_db > outcome.fidelity.sqnr_db + CLEARLY_DB:
                return evened
        return outcome

    def _effects(self, model: ir.Model, plan: Plan, statistics: Statistics) -> dict[str, float]:
        """Noise over signal at the output with each activation of `plan` alone in static 8 bits.

        This tells layers apart that err alike and matter differently. On a vision transformer the same noise
        in an input of a linear does hundreds of times more to the output in the first layer, whose output is
        small and largely cancels what comes in, than in the last.
        """
        widened = 1 + UNTRIED.margin
        ranges = {
            name: (float(seen.low) * widened, float(seen.high) * widened)
            for name in read_together(plan.layers)
            if math.isfinite((seen := statistics[name]).low)
        }
        few = self.stage.few(EFFECT_SAMPLES[self.settings.effort])

        def measure() -> dict[str, float]:
            told = partial(self.stage.progress, "measuring what each layer does to the output")
            return measure_effects(model, ranges, few, self.stage.threads, told)

        parts = [f"{name}: {low} {high}" for name, (low, high) in ranges.items()]
        return self.checkpoints.figures("effects", model, [str(few.indices), *parts], measure)

    def own_passes(self, passes: Sequence[AnyPass]) -> Outcome:
        """What the user's own list of passes makes of the model."""
        # Nothing is taken from checkpoints: a function of theirs may be another one by now.
        result = self.execution.run_now(self.stage.model, passes)
        return Outcome(result.model, result.model, ((passes, result),), None, self._fidelity(result.model))

    def _carry_out(self, plan: Plan, base: Run) -> Outcome:
        passes = self.emission.preparing(plan)
        prepared = self.execution.run(base[1].model, passes, gather_once(passes, self.stage.gather))
        ranges = self._ranges(plan, prepared.model) if plan.names("int8 static") else UNTRIED
        return self._rounded(plan, Candidate(prepared.model, ranges), (base, (passes, prepared)))

    def _rounded(self, plan: Plan, candidate: Candidate, runs: tuple[Run, Run]) -> Outcome:
        """The quantized model, `runs` having prepared it; weights are fitted to what was prepared."""
        exact = runs[1][1].model
        fitted = self.emission.quantizing(plan, candidate.ranges, candidate.fitting)
        quantizing = (*self._bounding(exact), *fitted)

        def gather(_: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
            return self.stage.gather(exact, wanted)

        quantized = self.execution.run(candidate.model, quantizing, gather_once(quantizing, gather))
        every = [*runs, *candidate.runs, (quantizing, quantized)]
        if converting := self.emission.converting():
            every.append((converting, quantized := self.execution.run(quantized.model, converting)))
        fidelity = self._fidelity(quantized.model)
        return Outcome(quantized.model, exact, tuple(every), plan, fidelity, candidate.ranges)

    def _bounding(self, exact: ir.Model) -> tuple[AnyPass, ...]:
        """The bound of masks, unless keys that they hide show behind it, told once for all plans.

        Where scores differ by more than the bound, as those of normed or biased queries may, tokens see what
        comes behind them, and padding.
        """
        bounding = self.emission.bounding()
        if bounding is None:
            return ()
        if self.hides is None:
            bound = apply_pass(exact, bounding)
            self.hides = not bound.modified or self._hides(exact, bound.model)
        return (bounding,) if self.hides else ()

    def _hides(self, exact: ir.Model, bound: ir.Model) -> bool:
        few = self.stage.few(HIDING_SAMPLES)
        return measure_fidelity(exact, bound, few, self.stage.threads).sqnr_db >= HIDDEN_DB

    def _refined(self, outcome: Outcome) -> Outcome:
        """What the best effort makes of a plan that was carried out; it costs no time at run time."""
        plan = outcome.plan
        if self.settings.effort != "best" or plan is None or not plan.names("int8 static"):
            return outcome
        start = Candidate(outcome.exact, outcome.ranges)
        best, rows = self._chosen(plan, start)
        if best is start:
            return replace(outcome, refinements=rows)
        made = self._rounded(plan, best, (outcome.runs[0], outcome.runs[1]))
        return replace(made, refinements=rows, before=outcome.before)

    def _chosen(self, plan: Plan, start: Candidate) -> tuple[Candidate, tuple[RefinementRow, ...]]:
        """The best candidate; the statistics that candidates were fitted to are let go of."""
        trial = Trial(
            self.stage, start.model, lambda tried: self.emission.fitted(plan, tried.ranges, tried.fitting)
        )
        learning = Learning(trial, self.target.weight_bits).refinements()
        return refine(start, (*FITTINGS, *self._clipping(plan), *learning), trial)

    def _clipping(self, plan: Plan) -> tuple[Refinement, ...]:
        """Ranges cut by token, unless the user said how they are to be taken."""

        def clipped(given: Candidate) -> Candidate:
            quick = partial(self.emission.trial_linears, plan)
            ranges = clip_ranges(self.stage, given.model, given.ranges, quick, self.checkpoints)
            return replace(given, ranges=ranges)

        return (Refinement("ranges clipped by token", clipped),) if self.settings.ranges is None else ()

    def _ranges(self, plan: Plan, model: ir.Model) -> Ranges:
        return choose_ranges(
            self.stage, model, self.settings, partial(self.emission.trial_linears, plan), self.checkpoints
        )

    def _fidelity(self, candidate: ir.Model) -> Comparison:
        return measure_fidelity(
            self.stage.model,
            candidate,
            self.stage.held_out,
            self.stage.threads,
            lambda done, total: self.stage.progress("judging on held-out data", done, total),
        )

"""A model, its data, and every state of it that some method starts from: each computed once.

Methods share most of their work. What a list of exact passes makes of the model is kept under that list, and
so are the statistics of it, gathered in one go for all methods that round this state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from benchmarks.learned import given_ranges
from benchmarks.planned import Bits, Planned, Upstream, planned_rounding
from benchmarks.recipes import Recipe, Step
from benchmarks.rounds import THREADS
from benchmarks.subjects import Subject
from onnxq.calibration import DataOptions, DataSource, collect, open_data
from onnxq.contract import AnyPass, names_wanted
from onnxq.edit import label_of
from onnxq.files import load
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.mixing import MIXES, only_mixes
from onnxq.ir.walk import nodes
from onnxq.passes.clean import cleaning
from onnxq.passes.layout import respelling
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import Gather, run
from onnxq.planning.adjustable import AdjustableModel
from onnxq.planning.clipping import ClippingSettings, clipping_needs, coarse_clipping
from onnxq.planning.layers import Plan
from onnxq.statistics import Statistic, Statistics

EXPECTED = {
    "the product is quantized already",
    "the weight is quantized already",
    "told to stay float",
    "not among the linears named",
    MIXES,
}
"""Reasons that every row gives."""
PRODUCTS = ("MatMulIntegerToFloat", "MatMulNBits")
"""Operators that rounded linears become."""
Wanted = Mapping[Statistic, Collection[str]]


@dataclass(frozen=True)
class Made:
    """A quantized model.

    Attributes:
        model: The model.
        products: How many linears were rounded.
        notes: What deserves to be known of it.
    """

    model: ir.Model
    products: int
    notes: tuple[str, ...] = ()


@dataclass
class State:
    """The model after some exact passes.

    Attributes:
        model: The model.
        source: Data that its statistics come from.
        plan: Which form each linear takes; None if nothing was planned.
        notes: What became of the passes, where it matters.
        plans: Plans for it by bits, by the form that they know nothing of, and by whether they heard what
            layers do to the output.
    """

    model: ir.Model
    source: DataSource
    plan: Plan | None = None
    notes: tuple[str, ...] = ()
    plans: dict[tuple[Bits, str, bool], Plan] = field(default_factory=dict)
    _wanted: dict[Statistic, frozenset[str]] = field(default_factory=dict)
    _known: Statistics = field(default_factory=Statistics)

    def gather(self, model: ir.Model, wanted: Wanted) -> Statistics:
        """Statistics for the pipeline: those of this state are kept, those of another model are not."""
        if model is not self.model:
            return collect(model, self.source, wanted, threads=THREADS)
        asked = {kind: frozenset(names) for kind, names in wanted.items()}
        if not all(names <= self._wanted.get(kind, frozenset()) for kind, names in asked.items()):
            kinds = {*self._wanted, *asked}
            self._wanted = {
                kind: self._wanted.get(kind, frozenset()) | asked.get(kind, frozenset()) for kind in kinds
            }
            self._known = collect(model, self.source, self._wanted, threads=THREADS)
        return self._known


class Workshop:
    """Everything that rows are made in.

    Args:
        model: The model as it came.
        source: Calibration data.
        room: States that are kept besides the first.
        recipes: All rows that will be made, so that their statistics are gathered together.
        clipping: Samples that token-wise clipping is judged on.
    """

    def __init__(
        self,
        model: ir.Model,
        source: DataSource,
        room: int,
        recipes: Sequence[Recipe],
        clipping: int = 32,
    ) -> None:
        self.source, self.room = source, room
        self.clipping = ClippingSettings(samples=clipping, threads=THREADS)
        cleaned = run(model, cleaning(), verify="never").model
        self._first = State(cleaned, source)
        self._prepared: dict[tuple[Step, ...], State] = {}
        self._final: dict[tuple[Step, ...], State] = {}
        self._recipes = recipes

    @classmethod
    def open(cls, subject: Subject, room: int, recipes: Sequence[Recipe], clipping: int = 32) -> Workshop:
        """The same of a subject's file and calibration data, all of it."""
        model = load(subject.path)
        options = DataOptions(batch_size=subject.batch)
        source = open_data(subject.data / "calibration.npz", model, options)
        return cls(model, source, room, recipes, clipping)

    def prepared(self, steps: tuple[Step, ...]) -> State:
        """The model after `steps`."""
        if not steps:
            return self._first
        return self._remembered(
            self._prepared, steps, lambda: _advance(self.prepared(steps[:-1]), _passes(steps[-1]), steps[-1])
        )

    def final(self, recipe: Recipe) -> State:
        """What `recipe` rounds, with all statistics that any recipe wants of it."""
        exact = recipe.exact
        found = self._remembered(self._final, exact, lambda: _advance(self.prepared(exact), _in_layout))
        wanted: dict[Statistic, set[str]] = {}
        for each in self._recipes:
            if each.exact == exact:
                for kind, names in _wanted(_roundings(each, found), found.model, each.clipping).items():
                    wanted.setdefault(kind, set()).update(names)
        found.gather(found.model, wanted)
        return found

    def _remembered(
        self, kept: dict[tuple[Step, ...], State], steps: tuple[Step, ...], build: Callable[[], State]
    ) -> State:
        """A state that is kept, or built now; the one used longest ago makes room."""
        found = kept.pop(steps, None) or build()
        kept[steps] = found
        while len(kept) > self.room:
            del kept[next(iter(kept))]
        return found


Passes = Callable[[State], tuple[Plan | None, tuple[AnyPass, ...]]]
"""What is planned, and passes to run, for a state."""
Rounding = QuantizeLinears | QuantizeBlocks


def _passes(step: Step) -> Passes:
    if isinstance(step, Planned):
        return lambda state: _plan(state, step)
    own = step.own if isinstance(step, Upstream) else step
    return lambda state: (state.plan, (own,))


def _in_layout(state: State) -> tuple[Plan | None, tuple[AnyPass, ...]]:
    """Spellings that the runtime executes fastest; the same for every method."""
    return state.plan, respelling("kernels")


def _advance(before: State, chosen: Passes, step: Step | None = None) -> State:
    plan, passes = chosen(before)
    gather = _rounded_above(before, step.rounding) if isinstance(step, Upstream) else before.gather
    result = run(before.model, passes, gather=gather, verify="never")
    undone = [f"{name} was undone: {reason}" for name, reason in result.rolled_back.items()]
    own = () if chosen is _in_layout else result.results
    counts = [f"{each.name}: {len(each.changes)}" for each in own]
    if plan is not None and plan is not before.plan:
        counts += [f"{form}: {count}" for form, count in Counter(each.form for each in plan.layers).items()]
    return State(result.model, before.source, plan, (*before.notes, *counts, *undone))


def _rounded_above(before: State, rounding: QuantizeLinears) -> Gather:
    """Statistics of the state's values behind rounded linears; values keep their names."""
    model = run(before.model, (rounding,), gather=before.gather, verify="never").model
    return lambda _, wanted: collect(model, before.source, wanted, threads=THREADS)


def quantize(workshop: Workshop, recipe: Recipe) -> Made:
    """Carry out one recipe."""
    state = workshop.final(recipe)
    first, *rest = _roundings(recipe, state)
    if recipe.learned is not None and isinstance(first, QuantizeLinears):
        start = AdjustableModel(_round(state, (first, *rest)).model, threads=THREADS).ranges
        model, ranges = recipe.learned.learn(state.model, start, state.source)
        return _round(replace(state, model=model), (replace(first, ranges=given_ranges(ranges)), *rest))
    made = _round(state, (first, *rest))
    if not recipe.clipping or not isinstance(first, QuantizeLinears):
        return made
    statistics = state.gather(state.model, _wanted((first, *rest), state.model, clipping=True))
    found = coarse_clipping(state.model, made.model, workshop.source, statistics, workshop.clipping)
    clipped = _round(state, (replace(first, ranges=given_ranges(found.ranges)), *rest))
    return replace(clipped, notes=(*clipped.notes, f"clipped at a share of {found.alpha:g}"))


def _round(state: State, roundings: Sequence[Rounding]) -> Made:
    """Round; weights are fitted to what the float model computes, whichever pass comes first."""
    wanted = _wanted(roundings, state.model, clipping=False)
    result = run(state.model, roundings, gather=lambda *_: state.gather(state.model, wanted), verify="never")
    trouble = [
        f"{each.name}: {why}" for each in result.results for why in (each.rolled_back, each.skipped) if why
    ]
    left = {reject.reason for each in result.results for reject in each.rejects} - EXPECTED
    products = sum(node.op_type in PRODUCTS for node in nodes(result.model))
    return Made(result.model, products, (*state.notes, *trouble, *sorted(left)))


def _roundings(recipe: Recipe, state: State) -> tuple[Rounding, ...]:
    """The recipe's rounding, with names of this state where it goes by them."""
    rounding = recipe.rounding
    if state.plan is not None:
        return planned_rounding(state.plan, rounding)
    if recipe.per_token and isinstance(rounding, QuantizeLinears):
        return (replace(rounding, per_token=_linear_names(state.model)),)
    return (rounding,)


def _linear_names(model: ir.Model) -> tuple[str, ...]:
    """Names of all linears that are rounded, as the passes know them."""
    found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
    return tuple(label_of(linear.node) for linear in found if not only_mixes(linear))


def _wanted(roundings: Sequence[Rounding], model: ir.Model, clipping: bool) -> dict[Statistic, set[str]]:
    wanted = names_wanted(roundings, model)
    if clipping and isinstance(roundings[0], QuantizeLinears):
        for kind, names in clipping_needs(roundings[0], model).items():
            wanted.setdefault(kind, set()).update(names)
    return wanted


def _plan(before: State, step: Planned) -> tuple[Plan, tuple[AnyPass, ...]]:
    """The planner's wishes: forms of linears, and exact passes. What each option does is measured once."""
    wanted = dict.fromkeys((Statistic.CHANNEL_EXTREMES, Statistic.ROWS), _linear_inputs(before.model))
    statistics = before.gather(before.model, wanted)
    plans = before.plans
    plain, heard = (step.bits, step.unknown, False), (step.bits, step.unknown, True)
    if plain not in plans:
        plans[plain] = step.plan(before.model, statistics)
    if step.effects and heard not in plans:
        plans[heard] = step.weighed(plans[plain], before.model, statistics, before.source)
    plan = step.choose(plans[heard if step.effects else plain])
    return plan, plan.exact_passes()


def _linear_inputs(model: ir.Model) -> frozenset[str]:
    names: Iterable[str] = (str(value.name) for value in QuantizeLinears().observe(model))
    return frozenset(names)

"""A model, its data, and every state of it that some method starts from: each computed once.

Methods share most of their work. What a list of exact passes makes of the model is kept under that list, and
so are the statistics of it, gathered in one go for all methods that round this state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from benchmarks.recipes import Planned, Recipe, Step, linear_names
from benchmarks.rounds import THREADS
from benchmarks.subjects import Subject
from onnxq.calibration import DataOptions, DataSource, collect, open_data
from onnxq.contract import AnyPass, names_wanted
from onnxq.files import load
from onnxq.ir.walk import nodes
from onnxq.passes.clean import cleaning
from onnxq.passes.layout import respelling
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import run
from onnxq.planning.clipping import ClippingSettings, clipping_needs, coarse_clipping
from onnxq.statistics import Statistic, Statistics

PRODUCTS = ("MatMulIntegerToFloat", "MatMulNBits")
"""Operators that rounded linears become."""
CLIPPING = ClippingSettings(samples=32, threads=THREADS)
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
        per_token: Linears whose input the planner gave a scale for each token.
        notes: What became of the passes, where it matters.
    """

    model: ir.Model
    source: DataSource
    per_token: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
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
    """

    def __init__(self, model: ir.Model, source: DataSource, room: int, recipes: Sequence[Recipe]) -> None:
        self.source, self.room = source, room
        cleaned = run(model, cleaning(), verify="never").model
        self._first = State(cleaned, source)
        self._prepared: dict[tuple[Step, ...], State] = {}
        self._final: dict[tuple[Step, ...], State] = {}
        self._recipes = recipes

    @classmethod
    def open(cls, subject: Subject, room: int, recipes: Sequence[Recipe]) -> Workshop:
        """The same of a subject's file and calibration data, all of it."""
        model = load(subject.path)
        options = DataOptions(batch_size=subject.batch)
        return cls(model, open_data(subject.data / "calibration.npz", model, options), room, recipes)

    def prepared(self, steps: tuple[Step, ...]) -> State:
        """The model after `steps`."""
        if not steps:
            return self._first
        return self._remembered(
            self._prepared, steps, lambda: _advance(self.prepared(steps[:-1]), _passes(steps[-1]))
        )

    def final(self, recipe: Recipe) -> State:
        """What `recipe` rounds, with all statistics that any recipe wants of it."""
        exact = recipe.exact
        found = self._remembered(self._final, exact, lambda: _advance(self.prepared(exact), _in_layout))
        wanted: dict[Statistic, set[str]] = {}
        for each in self._recipes:
            if each.exact == exact:
                for kind, names in _wanted(_rounding(each, found), found.model, each.clipping).items():
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


Passes = Callable[[State], tuple[tuple[str, ...], tuple[AnyPass, ...]]]
"""Linears with a scale for each token, and passes to run, for a state."""


def _passes(step: Step) -> Passes:
    if isinstance(step, Planned):
        return lambda state: _plan(state, step)
    return lambda state: (state.per_token, (step,))


def _in_layout(state: State) -> tuple[tuple[str, ...], tuple[AnyPass, ...]]:
    """Spellings that the runtime executes fastest; the same for every method."""
    return state.per_token, respelling("kernels")


def _advance(before: State, chosen: Passes) -> State:
    per_token, passes = chosen(before)
    result = run(before.model, passes, gather=before.gather, verify="never")
    undone = [f"{name} was undone: {reason}" for name, reason in result.rolled_back.items()]
    own = () if chosen is _in_layout else result.results
    counts = [f"{each.name}: {len(each.changes)}" for each in own]
    return State(result.model, before.source, per_token, (*before.notes, *counts, *undone))


def quantize(workshop: Workshop, recipe: Recipe) -> Made:
    """Carry out one recipe."""
    state = workshop.final(recipe)
    rounding = _rounding(recipe, state)
    made = _round(state, rounding)
    if not recipe.clipping or not isinstance(rounding, QuantizeLinears):
        return made
    wanted = _wanted(rounding, state.model, clipping=True)
    statistics = state.gather(state.model, wanted)
    found = coarse_clipping(state.model, made.model, workshop.source, statistics, CLIPPING)
    ranges = tuple((name, low, high) for name, (low, high) in sorted(found.ranges.items()))
    clipped = _round(state, replace(rounding, ranges=ranges))
    return replace(clipped, notes=(*clipped.notes, f"clipped at a share of {found.alpha:g}"))


def _round(state: State, rounding: AnyPass) -> Made:
    result = run(state.model, (rounding,), gather=state.gather, verify="never")
    (only,) = result.results
    trouble = [f"{rounding.name}: {why}" for why in (only.rolled_back, only.skipped) if why]
    left = sorted({reject.reason for reject in only.rejects} - {"the product is quantized already"})
    products = sum(node.op_type in PRODUCTS for node in nodes(result.model))
    return Made(result.model, products, (*state.notes, *trouble, *left))


def _rounding(recipe: Recipe, state: State) -> AnyPass:
    """The recipe's rounding, with names of this state where it goes by them."""
    names = linear_names(state.model) if recipe.per_token else state.per_token
    if names and isinstance(recipe.rounding, QuantizeLinears):
        return replace(recipe.rounding, per_token=names)
    return recipe.rounding


def _wanted(rounding: AnyPass, model: ir.Model, clipping: bool) -> dict[Statistic, set[str]]:
    return clipping_needs(rounding, model) if clipping else names_wanted((rounding,), model)


def _plan(before: State, step: Planned) -> tuple[tuple[str, ...], tuple[AnyPass, ...]]:
    """The planner's wishes: linears with a scale for each token, and exact passes."""
    inputs = _linear_inputs(before.model)
    wanted = dict.fromkeys((Statistic.CHANNEL_EXTREMES, Statistic.ROWS), inputs)
    plan = step.plan(before.model, before.gather(before.model, wanted))
    return plan.names("int8 per-token"), plan.exact_passes()


def _linear_inputs(model: ir.Model) -> frozenset[str]:
    names: Iterable[str] = (str(value.name) for value in QuantizeLinears().observe(model))
    return frozenset(names)

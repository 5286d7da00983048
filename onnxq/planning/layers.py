"""Which form each linear takes: decided by the error that the form makes on real activations, and its time.

All linears that read one activation are decided together, since they share what is done to it; where bytes
count, nothing is, and each is decided by itself. Every form that the target has is tried on real rows
(`trial`), weighed against what it costs (`options`), and the whole model's plan is the point of the front of
error against cost (`front`) where a further part of the cost stops buying a larger part of the error, or
where the fidelity that was asked for is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxq.contract import Pass
from onnxq.edit import label_of
from onnxq.ir.labels import is_named
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.disassemble_channels import DisassembleChannels
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.rotate_channels import RotateChannels
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.migrate.split_channels import SplitChannels
from onnxq.planning.candidates import Candidates
from onnxq.planning.front import Point, balanced_point, pareto_front
from onnxq.planning.groups import Weigher, groups_of
from onnxq.planning.layer_plan import LayerPlan, kept_float
from onnxq.planning.options import Form, Option
from onnxq.planning.reasons import decibels
from onnxq.planning.settings import PlanSettings
from onnxq.statistics import Statistics

ENOUGH = 1e-4
"""Noise over signal of a linear, or of the model's output where that is known, below which less is hardly
worth time: 40 dB."""
HOPELESS = 0.16
"""Noise over signal, 8 dB, from which a linear is worth any time: that is another function."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Every linear's form, and the other plans that were on the way.

    Attributes:
        layers: One for each linear, in the order of the graph.
        front: Plans from the cheapest to the most accurate.
        place: Which of them this is.
        candidates: By group, everything that was tried.
        enough: Summed error below which less is hardly worth time.
    """

    layers: tuple[LayerPlan, ...]
    front: tuple[Point, ...] = ()
    place: int = 0
    enough: float = ENOUGH
    candidates: Mapping[str, Candidates] = field(default_factory=dict, repr=False)

    def at(self, place: int, reason: str) -> Plan:
        """The plan at another place of the front; what differs from this one gets `reason`."""
        place = min(max(place, 0), len(self.front) - 1)
        point = self.front[place]
        layers = tuple(
            layer
            if layer.group not in self.candidates
            or point.chosen[layer.group] == self.front[self.place].chosen[layer.group]
            else replace(self.candidates[layer.group].layer(layer, point), reason=reason)
            for layer in self.layers
        )
        return replace(self, layers=layers, place=place)

    def weighed(self, effects: Mapping[str, float], settings: PlanSettings) -> Plan:
        """The plan in which a layer's error counts by what it does to the model's output.

        Errors then add up to the noise over signal of the output, as far as effects add up.

        Args:
            effects: By group, noise over signal of the model's output with its linears alone in their
                cheapest form. What is missing counts as the others do on average.
            settings: Those of this plan.
        """
        cheapest = {
            name: min(each.measured, key=lambda one: one.cost) for name, each in self.candidates.items()
        }
        known = {
            name: effects[name] / sum(one.errors)
            for name, one in cheapest.items()
            if name in effects and sum(one.errors) > 0
        }
        mean = sum(known.values()) / max(len(known), 1)
        if mean <= 0:
            return self
        candidates = {name: each.weighed(known.get(name, mean)) for name, each in self.candidates.items()}
        layers = tuple(_heard(layer, effects) for layer in self.layers)
        return _settled(layers, candidates, settings, ENOUGH)

    def among(self, allowed: Callable[[Option], bool], settings: PlanSettings) -> Plan:
        """The plan where only some options may be taken; nothing is measured anew.

        Args:
            allowed: Whether an option may be taken. A group that has no other keeps what it has.
            settings: Those of this plan.
        """
        candidates = {name: each.among(allowed) for name, each in self.candidates.items()}
        return _settled(self.layers, candidates, settings, self.enough)

    def step(self, place: int) -> str:
        """In words, what the plan at a place of the front does that the one before it does not; "" at 0."""
        point = self.front[place]
        if not point.changed:
            return ""
        chosen = self.candidates[point.changed].measured[point.chosen[point.changed]]
        return f"{point.changed}: {chosen.option}"

    @property
    def last(self) -> bool:
        """Whether there is no more accurate plan."""
        return self.place >= len(self.front) - 1

    def names(self, form: Form) -> tuple[str, ...]:
        """Names of the linears that take `form`."""
        return tuple(layer.name for layer in self.layers if layer.form == form)

    @property
    def splits(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Activations whose outlier channels are multiplied in float, and the channels."""
        found = {layer.activation: layer.outliers for layer in self.layers if layer.outliers}
        return tuple(found.items())

    @property
    def scaled(self) -> tuple[str, ...]:
        """Activations whose channels a Mul evens out."""
        scaled = (layer for layer in self.layers if layer.option.scaled)
        return tuple(dict.fromkeys(layer.activation for layer in scaled if layer.form == "int8 static"))

    def exact_passes(self) -> tuple[Pass, ...]:
        """What brings a model into the form that this plan rounds; what a split leaves over is scaled."""
        split: tuple[Pass, ...] = (SplitChannels(plan=self.splits),) if self.splits else ()
        if copied := dict.fromkeys(layer.activation for layer in self.layers if layer.option.copied):
            plan = tuple((name, 0.0) for name in copied)
            split += (DisassembleChannels(plan=plan, gain=0.0, measured=False),)
        scale = (InsertScale(only=self.scaled, gain=0.0),) if self.scaled else ()
        return (*split, *scale, *self._passes_by_token())

    def _passes_by_token(self) -> tuple[Pass, ...]:
        """The same for what finds scales at run time; linears keep their names, activations do not."""
        by_token = [layer for layer in self.layers if layer.form != "int8 static"]
        even = tuple(dict.fromkeys(layer.activation for layer in by_token if layer.option.scaled))
        rotated = tuple(layer.name for layer in by_token if layer.option.rotated)
        passes: list[Pass] = []
        if even:
            passes.append(ShiftScale(search="token", shift=False, insert_nodes=False, only=even))
            passes.append(InsertScale(search="token", shift=False, insert_nodes=False, only=even))
        return (*passes, *((RotateChannels(only=rotated),) if rotated else ()))


def plan_layers(model: ir.Model, statistics: Statistics, settings: PlanSettings) -> Plan:
    """A form for every linear of `model`.

    Args:
        model: The model, norms migrated.
        statistics: Channel extremes and rows of every linear's input.
        settings: See there.
    """
    linears = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
    inner = {node for function in model.functions.values() for node in function.all_nodes()}
    refused = {
        label_of(linear.node): "calibration does not look into functions"
        if linear.node in inner
        else _refusal(linear, statistics, settings)
        for linear in linears
    }
    open_ones = [linear for linear in linears if not refused[label_of(linear.node)]]
    weigh = Weigher.of(model)
    groups = groups_of(open_ones, statistics, apart=settings.count == "bytes")
    candidates = {group.name: Candidates.of(group, settings, weigh.weight(group)) for group in groups}
    if not candidates:
        return Plan(tuple(kept_float(linear, refused[label_of(linear.node)]) for linear in linears))
    together = {label: name for name, each in candidates.items() for label in each.labels}
    layers = tuple(
        replace(kept_float(linear, refused[label]), group=together.get(label, ""))
        for linear in linears
        for label in (label_of(linear.node),)
    )
    return _settled(layers, candidates, settings, ENOUGH * len(together))


def _settled(
    layers: Sequence[LayerPlan], candidates: Mapping[str, Candidates], settings: PlanSettings, enough: float
) -> Plan:
    """The plan at the place of the front where more time stops paying and no linear is beyond bearing."""
    front = pareto_front({name: each.measured for name, each in candidates.items()})
    place = max(balanced_point(front, settings.exchange, enough), _bearable(front, candidates))
    chosen = tuple(
        candidates[layer.group].layer(layer, front[place]) if layer.group in candidates else layer
        for layer in layers
    )
    return Plan(chosen, front, place, enough, candidates)


def _heard(layer: LayerPlan, effects: Mapping[str, float]) -> LayerPlan:
    """A layer with what its input does to the model's output, where that is known."""
    known = effects.get(layer.group)
    return layer if known is None else replace(layer, input_effect_db=decibels(known))


def _bearable(front: Sequence[Point], candidates: Mapping[str, Candidates]) -> int:
    """The first plan in which no linear is hopeless that some other option would save."""
    for place, point in enumerate(front):
        worst = (candidates[name].measured[index] for name, index in point.chosen.items())
        if all(max(each.errors) < HOPELESS for each in worst):
            return place
    return len(front) - 1


def _refusal(linear: Linear, statistics: Statistics, settings: PlanSettings) -> str:
    """Why a linear cannot be integer at all; "" if it can."""
    name = label_of(linear.node)
    if is_named(name, settings.keep_float):
        return "told to stay float"
    if linear.dtype.name != "float32":
        return f"it computes in {linear.dtype.name}"
    if not settings.target.pays(linear.channels, linear.columns):
        return f"{linear.channels} x {linear.columns} is too small to pay"
    seen = statistics.get(str(linear.activation.name))
    if seen is None or seen.rows is None or seen.channel is None or not len(seen.rows.values):
        return statistics.skipped.get(str(linear.activation.name), "calibration did not see its input")
    return ""

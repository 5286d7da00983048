"""What `onnxq optimize` decides and does at its default effort, as steps of a recipe.

Everything comes from `onnxq.api.emission`, so that the rows named ours follow the product: what migrates,
what the planner is asked, how linears and blocks are rounded. What every row of the table leaves out (integer
convolutions, rounded embeddings, spellings behind rounding) is left out here, and no linear stays float.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from benchmarks.rounds import THREADS
from onnxq.api.attempts import EFFECT_SAMPLES
from onnxq.api.emission import Emission
from onnxq.api.evaluate import measure_effects
from onnxq.api.ranges import UNTRIED
from onnxq.api.stage import Stage
from onnxq.calibration import DataSource
from onnxq.contract import AnyPass
from onnxq.passes.migrate.insert_scale import InsertScale
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.passes.quantize.blocks import QuantizeBlocks
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.planning.layers import Plan, plan_layers
from onnxq.planning.options import Form, Option
from onnxq.planning.settings import PlanSettings
from onnxq.recipe import OptimizeSettings
from onnxq.runtime.machine import read_machine
from onnxq.statistics import Statistics
from onnxq.targets import detect
from onnxq.targets.measured import costs_of

EIGHT_BIT_FORMS: tuple[Form, ...] = ("int8 blocks", "int4 blocks")
"""Forms whose kernels round activations to 8 bits whatever is asked for."""


@dataclass(frozen=True)
class Bits:
    """Bits of weights and of activations."""

    weights: int
    activations: int

    def __str__(self) -> str:
        return f"W{self.weights}A{self.activations}"

    @property
    def are_blocks(self) -> bool:
        """Whether the product has these bits as blocks of weights: `--weights int4`."""
        return self.weights == 4 and self.activations == 8


@dataclass(frozen=True)
class Planned:
    """The planner's choice of a form for each linear.

    Attributes:
        bits: That it tries options at.
        split: Whether channels may be multiplied in float.
        without: A form that no linear may take; "" for none.
        effects: Whether a layer's error counts by what it does to the output.
        last: Whether the most accurate plan of the front is taken, whatever its time.
    """

    bits: Bits
    split: bool = True
    without: str = ""
    effects: bool = True
    last: bool = False

    name = "planned"

    def plan(self, model: ir.Model, statistics: Statistics) -> Plan:
        """The plan at these bits for a model whose norms are migrated, whatever else is asked for.

        Args:
            model: The model.
            statistics: Channel extremes and rows of every linear's input.
        """
        return plan_layers(model, statistics, self._settings)

    def weighed(self, plan: Plan, model: ir.Model, statistics: Statistics, source: DataSource) -> Plan:
        """`plan`, errors counting by what each activation does to the output; as it is for 4-bit blocks.

        Args:
            plan: A plan at these bits.
            model: The model.
            statistics: Channel extremes of every linear's input.
            source: Calibration data, some of which tells what single layers do to the output.
        """
        if "int8 static" not in self._settings.forms:
            return plan
        stage = Stage(model, model, source, source, separate=False, threads=THREADS)
        few = stage.few(EFFECT_SAMPLES["balanced"])
        widened = 1 + UNTRIED.margin
        seen = {layer.activation: statistics[layer.activation] for layer in plan.layers if layer.considered}
        ranges = {
            name: (float(each.low) * widened, float(each.high) * widened) for name, each in seen.items()
        }
        finer = 4.0 ** (8 - self.bits.activations)  # noise grows by four with each bit less
        found = measure_effects(model, ranges, few, THREADS)
        return plan.weighed({name: finer * each for name, each in found.items()}, self._settings)

    def choose(self, plan: Plan) -> Plan:
        """What this step takes of a plan at its bits that was offered everything."""
        if self.without or not self.split:
            plan = plan.among(self._takes, self._settings)
        return plan.at(len(plan.front) - 1, "the most accurate plan") if self.last else plan

    def _takes(self, option: Option) -> bool:
        return option.form != self.without and (self.split or not (option.split or option.copied))

    @property
    def unknown(self) -> str:
        """A form that planning must not know of; "" where it is enough not to take it.

        Where there are 8-bit blocks, a head that shares its table is offered little else.
        """
        return self.without if self.without == "int8 blocks" else ""

    @property
    def _settings(self) -> PlanSettings:
        """What the product asks its planner, but that no linear stays float."""
        machine = read_machine()
        bits: Any = self.bits.weights  # no processor has 6 or 4, and the planner rounds to any
        target = replace(detect(machine), costs=costs_of(machine), weight_bits=bits)
        wished = replace(emission_for(self.bits), target=target).plan_settings()
        trial = replace(wished.trial, activation_bits=self.bits.activations)
        narrow = self.bits.activations < 8
        out = ("float", self.unknown, *(EIGHT_BIT_FORMS if narrow else ()))
        forms = tuple(form for form in wished.forms if form not in out)
        return replace(wished, forms=forms, trial=trial, margin=margin_for(self.bits))


@dataclass(frozen=True)
class Upstream:
    """A pass that looks at what rounded linears make of the activations, not at the exact ones.

    Attributes:
        own: The pass.
        rounding: How linears are rounded for that.
    """

    own: AnyPass
    rounding: QuantizeLinears


def emission_for(bits: Bits) -> Emission:
    """What the product asks of its passes at these bits, or at the next ones that it has."""
    settings = OptimizeSettings(weights="int4" if bits.are_blocks else "int8")
    return Emission(detect(read_machine()), settings)


def margin_for(bits: Bits) -> float:
    """Part by which the product's static ranges are wider than what calibration saw; none for narrow ones."""
    return UNTRIED.margin if bits.activations == 8 else 0.0


def migrating(bits: Bits) -> tuple[AnyPass, ...]:
    """The product's exact passes in front of the plan, thresholds chosen for these bits."""
    tried = {"weight_bits": bits.weights, "activation_bits": bits.activations, "margin": margin_for(bits)}
    return tuple(
        replace(each, **tried) if isinstance(each, ShiftScale | InsertScale) else each  # type: ignore[arg-type]
        for each in emission_for(bits).migrating()
    )


def planned_rounding(
    plan: Plan, rounding: QuantizeLinears | QuantizeBlocks
) -> tuple[QuantizeLinears | QuantizeBlocks, ...]:
    """What rounds a model by a plan: linears as `rounding` has it, and blocks as the product does."""
    eight, four = plan.names("int8 blocks"), plan.names("int4 blocks")
    found: list[QuantizeLinears | QuantizeBlocks] = []
    if isinstance(rounding, QuantizeLinears):
        skip, per_token = (*eight, *four), plan.names("int8 per-token")
        found.append(replace(rounding, skip=skip, per_token=per_token))
    rest = emission_for(Bits(8, 8)).quantizing(plan, UNTRIED)
    blocks = (each for each in rest if isinstance(each, QuantizeBlocks))
    nearest = rounding.rounding == "nearest"
    return (*found, *(replace(each, rounding="nearest") if nearest else each for each in blocks))

"""norm(x; γ, β) -> linear  =>  norm(x; γ/s, (β - z)/s) -> linear with rows * s, bias + z W

Fires on a layer norm or RMS norm that a linear reads and whose calibrated channel ranges are uneven or off
centre. z is the middle of each channel's range (a layer norm only: an RMS norm has no shift to hide it in);
s brings channels that stick out of a threshold back to it. Readers that are no linears get the old numbers
back through a Mul; the shift of a post-LN residual hides in the bias of the branch beside it. Channels that
every linear multiplies by zero are left alone and set no range.

The threshold is found in closed form (`scales`) or by trial on the output of the block behind the norm:
attention, gated product or linears, with weights and activation rounded (`search`).

Source: Outlier Suppression+ (arXiv 2304.09145, sec. 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.channels import live_channels
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.ir.linear import Linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.attention_objective import find_parts
from onnxq.passes.migrate.migration import MIGRATED, Migration, plan_migration
from onnxq.passes.migrate.rounding_trial import TrialBits
from onnxq.passes.migrate.scales import WORTH_MOVING, choose_scale
from onnxq.passes.migrate.search import Range, Search, rows_of, search_scale, terms_behind
from onnxq.passes.migrate.token_scale import TokenObjective
from onnxq.passes.norm_evidence import shift_examples
from onnxq.statistics import Statistic

Found = tuple[Migration, np.ndarray, np.ndarray, str]
"""What to move from where, scale and shift, and a remark for the report."""
NOTHING_TO_GAIN = 1e-3


@dataclass(frozen=True)
class ShiftScale(Pass):
    """Norm, then linear => the norm's channels centred and evened out, the linear compensating.

    Attributes:
        shift: Whether channels are centred (layer norms only).
        scale: Whether channels that stick out are scaled.
        insert_nodes: Whether nodes may restore the numbers for readers that are no linears.
        search: How the scale is found: "closed" from the channels' extremes, "linear" by trial on the
            output of the linears, "output" by trial on that of the block they are in, "token" from tokens,
            each of which is to have a range of its own.
        weight_bits: Bits of weights, in a trial or in closed form.
        activation_bits: Bits of the activation.
        margin: Part by which the activation's range is widened in a trial.
        keep_tied: Whether a norm is left alone if it would part the weight of one of its readers from an
            embedding that reads the same table.
        only: Names of the only norm outputs to move; all if there are none.
    """

    shift: bool = True
    scale: bool = True
    insert_nodes: bool = True
    search: Search = "closed"
    weight_bits: int = 8
    activation_bits: int = 8
    margin: float = 0.1
    keep_tied: bool = False
    only: tuple[str, ...] = ()

    name: ClassVar[str] = "shift-scale"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}))

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The outputs of all norms."""
        return [norm.output for node in nodes(model) if isinstance(norm := find_norm(node), Norm)]

    def wanted(self, model: ir.Model) -> Mapping[Statistic, Iterable[ir.Value]]:
        """Extremes; for trials also rows, and examples where there is an attention behind the norm."""
        norms = [norm for node in nodes(model) if isinstance(norm := find_norm(node), Norm)]
        outputs = [norm.output for norm in norms]
        wanted: dict[Statistic, Iterable[ir.Value]] = {Statistic.CHANNEL_EXTREMES: outputs}
        if self.search != "closed":
            wanted[Statistic.ROWS] = outputs
        if self.search == "output":
            wanted[Statistic.EXAMPLES] = [value for norm in norms for value in _block_values(norm)]
        return wanted

    def match(self, node: ir.Node, context: Context) -> Found | Reject | None:
        """A norm, and the scale and shift [C] that its statistics ask for."""
        norm = find_norm(node)
        if norm is None or isinstance(norm, Reject):
            return norm
        label = str(norm.output.name)
        if self.only and label not in self.only:
            return None
        seen = context.statistics.get(label)
        if seen is None and label.endswith(MIGRATED):
            return None
        plan = plan_migration(norm, insert_nodes=self.insert_nodes)
        if isinstance(plan, Reject):
            return plan
        if self.keep_tied and any(_is_tied(linear) for linear in plan.linears):
            return Reject("an embedding reads the same weight as its reader, and would need another", label)
        if seen is None or seen.channel is None:
            return Reject("calibration has no statistics of it", label)
        channels = Range(seen.channel.low, seen.channel.high, live_channels(plan.weights))
        shift = self._shift(norm, channels)
        try:
            scale, remark = self._scale(plan, channels, shift, context)
        except LookupError as trouble:
            return Reject(str(trouble.args[0]), label)
        if np.abs(scale - 1).max() <= NOTHING_TO_GAIN and not shift.any():
            return Reject("its channels are even already", label)
        obstacle = plan.obstacle(scale, shift)
        return Reject(obstacle, label) if obstacle else (plan, scale, shift, remark)

    def rewrite(self, found: Found, edit: Edit) -> None:
        """Move scale and shift."""
        plan, scale, shift, remark = found
        if remark:
            edit.remark(plan.norm.nodes[-1], remark)
        plan.apply(edit, scale, shift)

    def _shift(self, norm: Norm, channels: Range) -> np.ndarray:
        """The middle of each live channel; zero where the middles hardly matter against the whole range."""
        middle: np.ndarray = np.where(channels.live, (channels.low + channels.high) / 2, 0.0)
        whole = float(np.abs((channels.high, channels.low)).max())
        negligible = np.abs(middle).max() <= NOTHING_TO_GAIN * whole
        if not self.shift or norm.kind != "layer" or negligible:
            return np.zeros(norm.channels)
        return middle

    def _scale(
        self, plan: Migration, channels: Range, shift: np.ndarray, context: Context
    ) -> tuple[np.ndarray, str]:
        if not self.scale:
            return np.ones(shift.shape), ""
        if self.search == "closed":
            bits = TrialBits(self.weight_bits, self.activation_bits, margin=0.0)
            return choose_scale(channels.low - shift, channels.high - shift, plan.weights, bits), ""
        label = str(plan.norm.output.name)
        if self.search == "token":
            objective = TokenObjective(rows_of(label, context) - shift, plan.weights)
            found, ones = objective.scale(), np.ones(shift.shape)
            return (found if objective.error(ones) > WORTH_MOVING * objective.error(found) else ones), ""
        terms, remark = terms_behind(plan.linears, label, context, self.search)
        bits = TrialBits(self.weight_bits, self.activation_bits, self.margin)
        reach = np.maximum(np.abs(channels.low - shift), np.abs(channels.high - shift))

        def error_of(scale: np.ndarray) -> float:
            trial = channels.moved(scale, shift, bits)
            return sum(term.error(trial) for term in terms)

        return search_scale(reach, channels.live, error_of)[0], remark

    @classmethod
    def examples(cls) -> Examples:
        """Post-LN, pre-LN and RMS norms; norms that calibration did not see, or that are even."""
        return shift_examples()


def _is_tied(linear: Linear) -> bool:
    users = linear.root.uses() if linear.root is not None else ()
    return any(isinstance(find_embedding(node), Embedding) for node, index in users if index == 0)


def _block_values(norm: Norm) -> tuple[ir.Value, ...]:
    """What the attentions behind the norm are evaluated from: the norm's output, and what else crosses in."""
    plan = plan_migration(norm)
    parts = find_parts(plan.linears) if isinstance(plan, Migration) else []
    crossing = dict.fromkeys(value for part in parts for value in part.crossing)
    return (norm.output, *crossing) if parts else ()

"""norm(x; γ, β) -> linear  =>  norm(x; γ/s, (β - z)/s) -> linear with rows * s, bias + z W

Fires on a layer norm or RMS norm that a linear reads and whose calibrated channel ranges are uneven or off
centre. z is the middle of each channel's range (a layer norm only: an RMS norm has no shift to hide it in);
s brings channels that stick out of a threshold back to it. Readers that are no linears get the old numbers
back through a Mul; the shift of a post-LN residual hides in the bias of the branch beside it.

Source: Outlier Suppression+ (arXiv 2304.09145, sec. 3); the threshold in closed form, see `scales`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.migration import MIGRATED, Migration, plan_migration
from onnxq.passes.migrate.scales import choose_scale
from onnxq.passes.norm_evidence import shift_examples
from onnxq.statistics import Statistic

Found = tuple[Migration, np.ndarray, np.ndarray]
NOTHING_TO_GAIN = 1e-3


@dataclass(frozen=True)
class ShiftScale(Pass):
    """Norm, then linear => the norm's channels centred and evened out, the linear compensating.

    Attributes:
        shift: Whether channels are centred (layer norms only).
        scale: Whether channels that stick out are scaled.
        insert_nodes: Whether nodes may restore the numbers for readers that are no linears.
    """

    shift: bool = True
    scale: bool = True
    insert_nodes: bool = True

    name: ClassVar[str] = "shift-scale"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}))

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The outputs of all norms."""
        return [norm.output for node in nodes(model) if isinstance(norm := find_norm(node), Norm)]

    def match(self, node: ir.Node, context: Context) -> Found | Reject | None:
        """A norm, and the scale and shift [C] that its statistics ask for."""
        norm = find_norm(node)
        if norm is None or isinstance(norm, Reject):
            return norm
        label = str(norm.output.name)
        seen = context.statistics.get(label)
        if seen is None and label.endswith(MIGRATED):
            return None
        plan = plan_migration(norm, insert_nodes=self.insert_nodes)
        if isinstance(plan, Reject):
            return plan
        if seen is None or seen.channel is None:
            return Reject("calibration has no statistics of it", label)
        shift = self._shift(norm, seen.channel.low, seen.channel.high)
        low, high = seen.channel.low - shift, seen.channel.high - shift
        scale = choose_scale(low, high, plan.weights) if self.scale else np.ones(norm.channels)
        if scale.max() <= 1 + NOTHING_TO_GAIN and not shift.any():
            return Reject("its channels are even already", label)
        obstacle = plan.obstacle(scale, shift)
        return Reject(obstacle, label) if obstacle else (plan, scale, shift)

    def rewrite(self, found: Found, edit: Edit) -> None:
        """Move scale and shift."""
        plan, scale, shift = found
        plan.apply(edit, scale, shift)

    def _shift(self, norm: Norm, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The middle of each channel; zero where the middles hardly matter against the whole range."""
        middle: np.ndarray = (low + high) / 2
        negligible = np.abs(middle).max() <= NOTHING_TO_GAIN * float(np.abs((high, low)).max())
        if not self.shift or norm.kind != "layer" or negligible:
            return np.zeros(norm.channels)
        return middle

    @classmethod
    def examples(cls) -> Examples:
        """Post-LN, pre-LN and RMS norms; norms that calibration did not see, or that are even."""
        return shift_examples()

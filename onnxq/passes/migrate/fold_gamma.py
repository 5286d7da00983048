"""norm(x; γ, β) -> linear  =>  norm(x; γ/s, β/s) -> linear with rows * s,  s = max(|γ|, guard)

Fires on a layer norm or RMS norm that a linear reads and some |γ| exceeds the guard. Readers that are no
linears, such as a post-LN residual, get a Mul that restores the old numbers.

Large γ is what makes some channels of a norm's output tower over the others. Migrating all of γ (s = γ)
puts β/γ into the tensor, which explodes where γ is small; the guard moves only what sticks out. No data is
needed, and the shift of Outlier Suppression+ is zero here.

Source: Gamma Migration, Outlier Suppression (arXiv 2209.13325, sec. 4.1); the guard is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.norm import find_norm
from onnxq.passes.migrate.migration import Migration, plan_migration
from onnxq.passes.norm_evidence import gamma_examples


@dataclass(frozen=True)
class FoldGamma(Pass):
    """Norm with a large γ, then linear => the excess of γ moves into the linear's rows.

    Attributes:
        guard: Magnitude that γ keeps at most, > 0. Smaller moves more of γ into the weights.
        insert_nodes: Whether a Mul may restore the numbers for readers that are no linears.
    """

    guard: float = 1.0
    insert_nodes: bool = True

    name: ClassVar[str] = "fold-gamma"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """Nothing: γ tells."""
        return ()

    def match(self, node: ir.Node, context: Context) -> tuple[Migration, np.ndarray] | Reject | None:
        """A norm with some |γ| above the guard, and the scale to move."""
        norm = find_norm(node)
        if norm is None or isinstance(norm, Reject):
            return norm
        scale = np.maximum(np.abs(norm.gamma.astype(np.float64)) / self.guard, 1.0)
        # One rounding of γ/s to the model's type may leave it a hair above the guard.
        if scale.max() <= 1.0 + 1e-3:
            return Reject(f"no gamma exceeds {self.guard:g}", str(norm.output.name))
        plan = plan_migration(norm, insert_nodes=self.insert_nodes)
        if isinstance(plan, Reject):
            return plan
        obstacle = plan.obstacle(scale, np.zeros(norm.channels))
        return Reject(obstacle, str(norm.output.name)) if obstacle else (plan, scale)

    def rewrite(self, found: tuple[Migration, np.ndarray], edit: Edit) -> None:
        """Move the scale."""
        plan, scale = found
        plan.apply(edit, scale, np.zeros(plan.norm.channels))

    @classmethod
    def examples(cls) -> Examples:
        """Post-LN, pre-LN and RMS norms; norms whose readers cannot be compensated."""
        return gamma_examples()

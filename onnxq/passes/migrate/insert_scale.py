"""x -> linear  =>  x * (1/s) -> linear with rows * s
act(g) * linear(y; W, b) -> linear  =>  act(g) * linear(y; W/s, b/s) -> linear with rows * s

Fires on an activation that no norm gives, such as a Gelu's output, where calibration saw channels that tower
over the others and evening them out lowers the expected error of 8-bit products enough to be worth a Mul. In
a gated feed-forward the scale hides in the projection that is multiplied in, and costs nothing.

Source: the scale of Outlier Suppression+ (arXiv 2304.09145, sec. 3) where no norm can take it; the closed
form is in `scales`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.linear import Linear, find_linear, linear_giving, rewrite_linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.precision import fits
from onnxq.ir.walk import nodes, producer, root_of
from onnxq.passes.migrate.migration import MIGRATED, is_widely_shared
from onnxq.passes.migrate.narrow import is_narrow
from onnxq.passes.migrate.scales import choose_scale, expected_error
from onnxq.passes.norm_evidence import activation_examples
from onnxq.statistics import Statistic


@dataclass(frozen=True, eq=False)
class ScaledActivation:
    """An activation, the linears that read it, and its scale [C].

    Attributes:
        activation: The value.
        linears: Every linear that reads it.
        scale: Each channel's divisor.
        factor: The linear whose columns take the divisor, where the activation is a product with its output.
    """

    activation: ir.Value
    linears: tuple[Linear, ...]
    scale: np.ndarray
    factor: Linear | None


@dataclass(frozen=True)
class InsertScale(Pass):
    """Uneven activation, then linear => evened out by a Mul, the linear compensating.

    Attributes:
        gain: How many times smaller the expected squared error must become to be worth a Mul.
        insert_nodes: Whether a Mul may be inserted; without, only gated feed-forwards are scaled.
        only: Names of the only activations to scale; all if there are none.
    """

    gain: float = 1.1
    insert_nodes: bool = True
    only: tuple[str, ...] = ()

    name: ClassVar[str] = "insert-scale"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}))

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears that no norm gives."""
        found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
        return [linear.activation for linear in found if not _is_norm_output(linear.activation)]

    def match(self, node: ir.Node, context: Context) -> ScaledActivation | Reject | None:
        """The activation that the linear `node` reads, if evening it out pays."""
        linear = find_linear(node)
        if not isinstance(linear, Linear) or _is_norm_output(linear.activation) or is_narrow(linear):
            return linear if isinstance(linear, Reject) else None
        label = str(linear.activation.name)
        if self.only and label not in self.only:
            return None
        seen = context.statistics.get(label)
        if seen is None and label.endswith(MIGRATED):
            return None
        if seen is None or seen.channel is None:
            return Reject("calibration has no statistics of it", label)
        linears = _readers(linear.activation)
        if not linears:
            return Reject("only a subgraph reads it", label)
        if any(is_widely_shared(reader) for reader in linears):
            return Reject("the weight of a linear that reads it is shared widely", label)
        low, high = seen.channel.low, seen.channel.high
        weights = [reader.weight for reader in linears]
        scale = choose_scale(low, high, weights)
        factor = _factor(linear.activation, linears)
        if reason := self._not_worth_it(low, high, scale, weights, factor):
            return Reject(reason, label)
        found = ScaledActivation(linear.activation, linears, scale, factor)
        overflow = not all(fits(reader.weight * scale[:, None], reader.dtype) for reader in linears)
        return Reject(f"a scaled weight overflows {linear.dtype.name}", label) if overflow else found

    def rewrite(self, found: ScaledActivation, edit: Edit) -> None:
        """Divide the channels, multiply the rows."""
        activation, scale = found.activation, found.scale
        for linear in found.linears:
            rewrite_linear(linear, edit, linear.weight.astype(np.float64) * scale[:, None], linear.bias)
        if found.factor is not None:
            factor = found.factor
            bias = None if factor.bias is None else factor.bias.astype(np.float64) / scale
            rewrite_linear(factor, edit, factor.weight.astype(np.float64) / scale, bias)
            edit.rename(activation, f"{activation.name}{MIGRATED}")
            return
        first = found.linears[0]
        divisor = edit.constant((1 / scale).astype(first.dtype), f"{activation.name}_scale", near=first.node)
        (scaled,) = edit.insert(
            "Mul",
            [activation, divisor],
            before=first.node,
            names=[f"{activation.name}{MIGRATED}"],
            like=activation,
        )
        for linear in found.linears:
            edit.rewire(linear.node, 0, scaled)

    def _not_worth_it(
        self,
        low: np.ndarray,
        high: np.ndarray,
        scale: np.ndarray,
        weights: list[np.ndarray],
        factor: Linear | None,
    ) -> str:
        if factor is None and not self.insert_nodes:
            return "only a new node could scale it"
        rows = [weight.astype(np.float64) for weight in weights]
        powers = sum(np.einsum("kn,kn->k", row, row) for row in rows)
        before = expected_error(low, high, np.ones(scale.shape), rows, powers)
        after = expected_error(low, high, scale, rows, powers)
        if before < self.gain * after:
            return f"scaling would lower the expected error {before / max(after, 1e-300):.2f} times only"
        return ""

    @classmethod
    def examples(cls) -> Examples:
        """Gelu-like outputs, gated products; even or unseen activations, shared weights."""
        return activation_examples()


def _is_norm_output(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and isinstance(find_norm(node), Norm)


def _readers(value: ir.Value) -> tuple[Linear, ...]:
    """Linears that read `value` in its own graph, in the order of the graph."""
    node = value.producer()
    graph = node.graph if node is not None else value.graph
    readers = [user for user, index in value.uses() if index == 0 and user.graph is graph]
    found = [linear for user in readers if isinstance(linear := find_linear(user), Linear)]
    order = {node: position for position, node in enumerate(graph)} if graph is not None else {}
    return tuple(sorted(found, key=lambda linear: order[linear.node]))


def _factor(activation: ir.Value, linears: tuple[Linear, ...]) -> Linear | None:
    """The linear whose output is one factor of `activation` and goes nowhere else."""
    product = producer(activation, "Mul")
    if product is None or activation.is_graph_output() or len(activation.uses()) != len(linears):
        return None
    for part in product.inputs:
        if part is None or root_of(part) is not None or part.is_graph_output() or len(part.uses()) != 1:
            continue
        linear = linear_giving(part)
        if linear is not None and linear.columns == linears[0].channels and not is_widely_shared(linear):
            return linear
    return None

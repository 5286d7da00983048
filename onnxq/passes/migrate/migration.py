"""A norm, everybody who reads it, and the move of a scale and a shift from one to the other.

    y = norm(x; γ, β)     =>   y' = norm(x; γ/s, (β - z)/s),  y = y' * s + z

    linear(y) = y W + b   =>   y' (s W) + (b + z W)            nothing added
    y elsewhere           =>   y' * s + z                      one Mul, and one Add unless z can hide

An output of the graph is restored as a reader is. The residual that reads a post-LN norm adds a linear branch
to it: z then hides in that branch's bias, unless somebody else wants it back.
Exact in the reals; arithmetic on weights is in float64 and rounded once.
Source: the migration of Outlier Suppression (arXiv 2209.13325, sec. 4.1) and Outlier Suppression+
(arXiv 2304.09145, sec. 3.1), with every reader compensated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit, Reject
from onnxq.ir.flow import Use, uses_through
from onnxq.ir.linear import Linear, find_linear, linear_giving, rewrite_linear
from onnxq.ir.norm import Norm, rewrite_norm
from onnxq.ir.precision import fits
from onnxq.ir.walk import is_op

MOST_READERS = 2
MIGRATED = "_migrated"
"""End of the name of a tensor that was moved: statistics of the old numbers do not fit it."""
Hop = tuple[ir.Node, int]
"""A node that reads a norm's output directly, and by which input."""


@dataclass(frozen=True, eq=False)
class Migration:
    """A norm whose output may be scaled and shifted channel by channel.

    Attributes:
        norm: The producer.
        linears: Readers that absorb scale and shift in their weights.
        restored: Direct readers of anything else, which get the old numbers back.
        branches: For each of `restored` that is a residual Add, the linear whose bias can take the shift;
            empty unless all of them can, and nobody else wants the shift.
        is_output: Whether the graph gives the norm's output to its caller, who gets the old numbers back.
    """

    norm: Norm
    linears: tuple[Linear, ...]
    restored: tuple[Hop, ...] = ()
    branches: tuple[Linear, ...] = ()
    is_output: bool = False

    @property
    def weights(self) -> list[np.ndarray]:
        """The weights [C, N] of the linears."""
        return [linear.weight for linear in self.linears]

    def obstacle(self, scale: np.ndarray, shift: np.ndarray) -> str:
        """Why this scale and shift, [C] each, cannot be moved; "" if they can."""
        gamma, beta = self._producer(scale, shift)
        if not fits(gamma, self.norm.dtype) or (beta is not None and not fits(beta, self.norm.dtype)):
            return f"the new scale and shift of the norm overflow {self.norm.dtype.name}"
        for linear in self.linears:
            weight, bias = absorbed(linear, scale, shift)
            if not fits(weight, linear.dtype) or (bias is not None and not fits(bias, linear.dtype)):
                return f"the new weight of {linear.node.name!r} overflows {linear.dtype.name}"
        return ""

    def apply(self, edit: Edit, scale: np.ndarray, shift: np.ndarray) -> None:
        """Move scale and shift, [C] each and float64; `obstacle` must have been empty."""
        for linear in self.linears:
            rewrite_linear(linear, edit, *absorbed(linear, scale, shift))
        gamma, beta = self._producer(scale, shift)
        if self.restored or self.is_output:
            self._restore(edit, scale, shift)
        else:
            edit.rename(self.norm.output, f"{self.norm.output.name}{MIGRATED}")
        rewrite_norm(self.norm, edit, gamma, beta)

    def _producer(self, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        gamma = self.norm.gamma.astype(np.float64) / scale
        if self.norm.beta is None and not shift.any():
            return gamma, None
        beta = np.zeros(gamma.shape) if self.norm.beta is None else self.norm.beta.astype(np.float64)
        return gamma, (beta - shift) / scale

    def _restore(self, edit: Edit, scale: np.ndarray, shift: np.ndarray) -> None:
        """Give the old numbers, under their old name, to whoever is no linear."""
        output = restored = self.norm.output
        name = str(output.name)
        for branch in self.branches:
            bias = np.zeros(branch.columns) if branch.bias is None else branch.bias.astype(np.float64)
            rewrite_linear(branch, edit, branch.weight, bias + shift)
        near = _behind(self.norm.nodes[-1])
        steps = [("Mul", scale)] if (scale != 1).any() else []
        steps += [("Add", shift)] if shift.any() and not self.branches else []
        for op_type, vector in steps:
            array = vector.astype(self.norm.dtype)
            constant = edit.constant(array, f"{name}_{op_type.lower()}", near=near)
            inputs = [restored, constant]
            (restored,) = edit.insert(op_type, inputs, before=near, names=[f"{name}_restored"], like=output)
        for node, index in self.restored:
            edit.rewire(node, index, restored)
        if steps:
            edit.hand_over(output, restored, f"{name}{MIGRATED}")
        else:
            edit.rename(output, f"{name}{MIGRATED}")


def plan_migration(norm: Norm, *, insert_nodes: bool = True) -> Migration | Reject:
    """How scale and shift could leave `norm`, or why they cannot.

    Args:
        norm: What `find_norm` found.
        insert_nodes: Whether a Mul (and Add) may restore the numbers for readers that are no linears, and
            for the caller where the norm's output is one of the graph's.
    """
    label = str(norm.output.name)
    hops: dict[Hop, list[Use]] = {}
    for use in uses_through(norm.output, norm.channels):
        if (hop := _first_hop(use)) is not None:
            hops.setdefault(hop, []).append(use)
    linears: list[Linear] = []
    restored: list[Hop] = []
    for hop, uses in hops.items():
        found = [_linear_reading(use, norm.channels) for use in uses]
        absorbed = [linear for linear in found if linear is not None]
        if len(absorbed) == len(uses):
            linears += absorbed
        elif absorbed:
            return Reject(f"{hop[0].op_type} {hop[0].name!r} passes it on to linears and to others", label)
        else:
            restored.append(hop)
    return _planned(norm, linears, restored, insert_nodes)


def _planned(
    norm: Norm, linears: list[Linear], restored: list[Hop], insert_nodes: bool
) -> Migration | Reject:
    label, graph = str(norm.output.name), norm.nodes[-1].graph
    is_output = norm.output.is_graph_output()
    if not linears:
        return Reject("no linear reads it", label)
    if restored and not insert_nodes:
        reader = restored[0][0]
        return Reject(f"{reader.op_type} {reader.name!r} reads it too, and nodes may not be inserted", label)
    if is_output and not insert_nodes:
        return Reject("it is an output of its graph, and nodes may not be inserted", label)
    given_here = graph is not None and any(value is norm.output for value in graph.outputs)
    if any(node.graph is not graph for node, _ in restored) or is_output != given_here:
        return Reject("a subgraph reads it", label)
    branches = [_branch(norm, hop) for hop in restored]
    absorbing = {linear.node for linear in linears}  # one of these cannot take the shift a second time
    usable = tuple(branch for branch in branches if branch is not None and branch.node not in absorbing)
    hidden = usable if len(usable) == len(branches) and not is_output else ()
    return Migration(norm, tuple(linears), tuple(restored), hidden, is_output)


def _first_hop(use: Use) -> Hop | None:
    """The direct reader on the way to `use`; None where the value itself leaves its graph."""
    node = use.path[0] if use.path else use.node
    return None if node is None else (node, 0 if use.path else use.index)


def _linear_reading(use: Use, channels: int) -> Linear | None:
    """The linear that reads the tensor here, if its weight is its own and each row meets one channel."""
    if use.node is None or use.index != 0:
        return None
    linear = find_linear(use.node)
    if not isinstance(linear, Linear) or linear.channels != channels:
        return None
    return None if is_widely_shared(linear) else linear


def is_widely_shared(linear: Linear) -> bool:
    """Whether copies of the weight, one for each scale, would multiply it.

    A weight read in two places, such as a tied embedding and head, may be parted; the one layer that ALBERT
    runs twelve times may not.
    """
    root = linear.root
    return root is None or len(root.uses()) > MOST_READERS or root.is_graph_output()


def _branch(norm: Norm, hop: Hop) -> Linear | None:
    """The linear that a residual Add puts beside the norm's output, if it alone goes there."""
    node, index = hop
    if not is_op(node, "Add"):
        return None
    other = node.inputs[1 - index]
    if other is None or other.is_graph_output() or len(other.uses()) != 1:
        return None
    linear = linear_giving(other)
    return linear if linear is not None and linear.columns == norm.channels else None


def absorbed(linear: Linear, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight and bias of `linear` for an activation that was shifted and scaled."""
    weight = linear.weight.astype(np.float64)
    bias = None if linear.bias is None else linear.bias.astype(np.float64)
    if shift.any():
        moved = shift @ weight
        bias = moved if bias is None else bias + moved
    return weight * scale[:, None], bias


def _behind(node: ir.Node) -> ir.Node:
    """The node that follows `node` in its graph: where something new may read what it computes."""
    graph = node.graph
    if graph is None:
        raise ValueError(f"node {node.name!r} is in no graph")
    nodes = iter(graph)
    for candidate in nodes:
        if candidate is node:
            break
    return next(nodes)

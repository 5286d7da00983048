"""Residual connections: additions that join a branch with where it branched off, and streams of them.

pre    x -> norm -> branch -> + x         the stream itself is never normalised
post   x -> branch -> + x -> norm         the norm's output is the stream
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.ir.flow import source_of
from onnxq.ir.linear import Linear, linear_giving
from onnxq.ir.norm import Norm, find_norm, norm_giving
from onnxq.ir.walk import is_op, nodes, producer, root_of

SUMS = ("Add", "Sum")
"""Operators that join a branch with its skip connection."""
_SEARCH_LIMIT = 2000
"""Nodes looked at on the way up from a branch to where it branched off; real branches have up to 200."""
_STEP_LIMIT = 16
_PARALLEL_LIMIT = 3
"""Additions of parallel branches (attention and feed-forward side by side) that one residual may join."""


@dataclass(frozen=True, eq=False)
class Residual:
    """An addition that joins a branch with its skip connection.

    Attributes:
        node: The Add, or a Sum of two.
        skip: The input that bypasses the branch.
        branch: The other input.
        skip_index: Which input of `node` is `skip`.
        linears: The linear layers that end the branch: one, or one for each of several parallel branches.
        output: The sum.
    """

    node: ir.Node
    skip: ir.Value
    branch: ir.Value
    skip_index: int
    linears: tuple[Linear, ...]
    output: ir.Value

    @property
    def linear(self) -> Linear | None:
        """The linear layer that ends the branch, if it is a single one."""
        return self.linears[0] if len(self.linears) == 1 else None


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """A chain of residuals, each branching off the sum (or the norm of the sum) of the one before.

    Attributes:
        start: Where the first one branches off.
        residuals: The additions, in order.
        norms: The norms in the stream itself (post placement), in order.
    """

    start: ir.Value
    residuals: tuple[Residual, ...]
    norms: tuple[Norm, ...]


def find_residual(node: ir.Node) -> Residual | None:
    """The residual connection that `node`, an Add or a Sum of two, joins.

    The branch is the input that ends with a linear layer (seen through norms and constant factors) and is
    computed from the other input. Biases, position embeddings and masks are therefore none.
    """
    return _residual(node, _PARALLEL_LIMIT)


def find_streams(model: ir.Model) -> list[ResidualStream]:
    """Every residual stream of `model`, in order: one for an encoder or a decoder, two for both."""
    chains: dict[ir.Value, tuple[ir.Value, list[Residual], list[Norm]]] = {}
    for node in nodes(model):
        found = find_residual(node)
        if found is None:
            continue
        origin, norm = _origin(found.skip)
        start, residuals, norms = chains.pop(origin, (_start(origin, norm), [], []))
        inside = [norm] if norm is not None and norm not in norms else []
        chains[found.output] = (start, [*residuals, found], norms + inside)
    return [
        ResidualStream(start, tuple(residuals), tuple(norms)) for start, residuals, norms in chains.values()
    ]


def _start(origin: ir.Value, norm: Norm | None) -> ir.Value:
    return norm.output if norm is not None else origin


def _origin(skip: ir.Value) -> tuple[ir.Value, Norm | None]:
    """The sum that `skip` carries on, and the norm between them if there is one."""
    value = source_of(skip)
    norm = norm_giving(value)
    return (value if norm is None else source_of(norm.input)), norm


def _residual(node: ir.Node, parallel: int) -> Residual | None:
    if not is_op(node, *SUMS) or len(node.inputs) != 2:
        return None
    if any(root_of(value) is not None for value in node.inputs):
        return None
    candidates = []
    for index in (0, 1):
        skip, branch = node.inputs[index], node.inputs[1 - index]
        if skip is None or branch is None:
            return None
        ends = _ends(branch, _PARALLEL_LIMIT)
        if ends:
            candidates.append(Residual(node, skip, branch, index, ends, node.outputs[0]))
    # A branch that is a linear layer outright is more likely than one behind a norm, so it is tried first.
    candidates.sort(key=lambda found: linear_giving(source_of(found.branch)) is None)
    for found in candidates:
        if _depends(found.branch, source_of(found.skip)):
            return found
    return _second_of_two(candidates, parallel)


def _second_of_two(candidates: list[Residual], parallel: int) -> Residual | None:
    """``(x + f(x)) + g(x)``: neither input of the second sum is computed from the other."""
    for found in candidates:
        first = producer(source_of(found.skip), *SUMS)
        inner = _residual(first, parallel - 1) if first is not None and parallel else None
        if inner is not None and _depends(found.branch, source_of(inner.skip)):
            return found
    return None


def _ends(branch: ir.Value, parallel: int) -> tuple[Linear, ...]:
    """The linear layers that `branch` ends with, seen through norms, constant factors and parallel sums."""
    value: ir.Value | None = branch
    for _ in range(_STEP_LIMIT):
        if value is None:
            return ()
        value = source_of(value)
        linear = linear_giving(value)
        if linear is not None:
            return (linear,)
        node = value.producer()
        if node is None:
            return ()
        norm = find_norm(node)
        if isinstance(norm, Norm):
            value = norm.input
        elif is_op(node, "Mul", "Div"):
            value = _varying_input(node)
        elif is_op(node, *SUMS) and parallel:
            parts = [_ends(part, parallel - 1) if part is not None else () for part in node.inputs]
            return (*parts[0], *parts[1]) if all(parts) else ()
        else:
            return ()
    return ()


def _varying_input(node: ir.Node) -> ir.Value | None:
    """The input of a product with a constant (a layer scale) that is not the constant."""
    varying = [value for value in node.inputs if root_of(value) is None]
    return varying[0] if len(varying) == 1 else None


def _depends(value: ir.Value, ancestor: ir.Value) -> bool:
    """Whether `value` is computed from `ancestor`, not looking further than any real branch is long."""
    seen: dict[ir.Node, None] = {}
    pending = [value]
    while pending and len(seen) < _SEARCH_LIMIT:
        current = pending.pop(0)
        if current is ancestor:
            return True
        node = current.producer()
        if node is not None and node not in seen:
            seen[node] = None
            pending += [given for given in node.inputs if given is not None]
    return False

"""The core of a spelled-out norm: a value, centred or not, divided by the root of its mean square."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.ir.flow import through_casts
from onnxq.ir.walk import attribute, axes_of, input_of, is_scalar_close, producer, rank_of, scalar_of


@dataclass(frozen=True)
class Core:
    """A norm without scale and shift.

    Attributes:
        kind: ``"layer"`` or ``"rms"``.
        input: What is normalised.
        epsilon: What is added to the mean square.
        nodes: The arithmetic nodes (no casts), the last one giving the result.
        reason: Why this is a near match only; "" if it is a match.
    """

    kind: str
    input: ir.Value
    epsilon: float
    nodes: tuple[ir.Node, ...]
    reason: str = ""


@dataclass
class _Trace:
    """What one attempt has passed on its way up."""

    nodes: list[ir.Node] = field(default_factory=list)
    reason: str = ""

    def step(self, value: ir.Value | None, *op_types: str) -> ir.Node | None:
        """The producer of `value`, seen through casts, if it is one of these operators."""
        bare = through_casts(value) if value is not None else None
        node = producer(bare, *op_types)
        if node is not None and node not in self.nodes:
            self.nodes.append(node)
        return node


def find_core(node: ir.Node) -> Core | None:
    """The core of a norm whose last node is the Mul or Div `node`; with a reason if it is a near match."""
    for source, root, power in _divisions(node):
        trace = _Trace([node])
        variance = _root_of_sum(root, power, trace)
        if variance is None:
            continue
        squares, epsilon = variance
        centre = _mean_of_squares(squares, trace)
        if centre is None or not _same_centre(centre, source):
            continue
        return _core(source, centre, epsilon, trace)
    return None


def _divisions(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value, float]]:
    """Ways to read `node` as ``source * root ** power``, power 1 (multiply) or -1 (divide)."""
    left, right = input_of(node, 0), input_of(node, 1)
    if left is None or right is None:
        return
    if node.op_type == "Div":
        yield left, right, -1.0
    elif node.op_type == "Mul":
        yield left, right, 1.0
        yield right, left, 1.0


def _root_of_sum(value: ir.Value, power: float, trace: _Trace) -> tuple[ir.Value, float] | None:
    """Read ``value ** power`` as ``(squares + epsilon) ** -0.5``; returns squares and epsilon."""
    if power > 0:
        inverse = trace.step(value, "Reciprocal", "Div")
        if inverse is not None and inverse.op_type == "Reciprocal":
            return _root_of_sum(inverse.inputs[0], -power, trace) if inverse.inputs[0] is not None else None
        if inverse is not None:
            one, below = inverse.inputs
            if below is None or not is_scalar_close(one, 1.0):
                return None
            return _root_of_sum(below, -power, trace)
    root = trace.step(value, "Sqrt", "Pow")
    if root is None or root.inputs[0] is None:
        return None
    exponent = 0.5 if root.op_type == "Sqrt" else _exponent(root)
    if exponent * power != -0.5:
        return None
    return _sum(root.inputs[0], trace)


def _exponent(node: ir.Node) -> float:
    for known in (2.0, 0.5, -0.5):
        if is_scalar_close(input_of(node, 1), known):
            return known
    return 0.0


def _sum(value: ir.Value, trace: _Trace) -> tuple[ir.Value, float] | None:
    add = trace.step(value, "Add")
    if add is None:
        return None
    for index in (0, 1):
        epsilon, squares = scalar_of(input_of(add, index)), input_of(add, 1 - index)
        if epsilon is not None and squares is not None:
            return squares, epsilon[0]
    return None


def _mean_of_squares(value: ir.Value, trace: _Trace) -> ir.Value | None:
    """Read `value` as the mean of something squared; returns that something."""
    mean = trace.step(value, "ReduceMean")
    if mean is None or mean.inputs[0] is None:
        return None
    _check_mean(mean, trace)
    square = trace.step(mean.inputs[0], "Pow", "Mul")
    if square is None or square.inputs[0] is None or square.inputs[1] is None:
        return None
    if square.op_type == "Pow":
        return square.inputs[0] if _exponent(square) == 2.0 else None
    return square.inputs[0] if _same_centre(square.inputs[0], square.inputs[1]) else None


def _check_mean(mean: ir.Node, trace: _Trace) -> None:
    """A mean over another axis, or one that drops the axis, makes a near match."""
    axes = axes_of(mean)
    rank = _rank(mean.inputs[0])
    if axes is None or len(axes) != 1 or (axes[0] != -1 and (rank is None or axes[0] != rank - 1)):
        trace.reason = "the norm is not over the last axis alone"
    elif not attribute(mean, "keepdims", 1):
        trace.reason = "a mean of the norm drops its axis"


def _rank(value: ir.Value | None) -> int | None:
    """Rank of an inner value: its own, or that of what it was computed from, element by element."""
    while value is not None and rank_of(value) is None:
        node = producer(value, "Pow", "Mul", "Sub", "Cast")
        value = node.inputs[0] if node is not None else None
    return rank_of(value) if value is not None else None


def _same_centre(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values are the same, or the same difference to the same mean, computed twice."""
    one, other = through_casts(one), through_casts(other)
    if one is other:
        return True
    first, second = _centre(one, _Trace()), _centre(other, _Trace())
    return first is not None and second is not None and through_casts(first) is through_casts(second)


def _centre(value: ir.Value, trace: _Trace) -> ir.Value | None:
    """Read `value` as ``x - mean(x)``; returns x."""
    difference = trace.step(value, "Sub")
    if difference is None or difference.inputs[0] is None:
        return None
    mean = trace.step(difference.inputs[1], "ReduceMean")
    if mean is None or mean.inputs[0] is None:
        return None
    if through_casts(mean.inputs[0]) is not through_casts(difference.inputs[0]):
        return None
    _check_mean(mean, trace)
    return difference.inputs[0]


def _core(source: ir.Value, squared: ir.Value, epsilon: float, trace: _Trace) -> Core:
    attempt = _Trace(list(trace.nodes))
    _centre(squared, attempt)
    centred = _centre(source, attempt)
    if centred is None:
        return Core("rms", source, epsilon, tuple(reversed(trace.nodes)), trace.reason)
    return Core("layer", centred, epsilon, tuple(reversed(attempt.nodes)), trace.reason or attempt.reason)

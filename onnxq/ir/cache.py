"""Caches of keys and values: what a language model is given of earlier calls and hands on to the next.

    present = concat(past, new) over the positions;   past is an input of the graph, present an output

as nodes, or inside an attention operator that takes and gives them. The mask that goes with it lets a token
see what came before it and itself; as nodes

    where(column <= row + past, 0, -large),  row = 0 ... S - 1,  column = 0 ... past + S - 1

perhaps narrowed further by a mask over the positions that the caller gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.edit import label_of
from onnxq.ir.walk import attribute, axes_of, constant_of, input_of, is_op, last_dim, producer, rank_of

_STEP_LIMIT = 24
_OPERATORS = {"GroupQueryAttention": ((3, 1), (4, 2)), "MultiHeadAttention": ((6, 1), (7, 2))}
"""Contrib operators with a cache: pairs of the input that is the past and the output that is the present."""
_STANDARD = ((4, 1), (5, 2))
"""The same of the Attention operator of opset 23."""
_RENAMING = ("Cast", "Expand", "Identity", "Reshape")


@dataclass(frozen=True, eq=False)
class Cached:
    """Keys or values of one layer.

    Attributes:
        past: The graph input, [B, heads, past, size].
        present: The graph output, [B, heads, past + new, size].
        new: What this call adds; None where an operator computes it inside.
        node: The Concat, or the operator.
        heads: How many heads; None if unknown.
        size: Channels of one head; None if unknown.
    """

    past: ir.Value
    present: ir.Value
    new: ir.Value | None
    node: ir.Node
    heads: int | None
    size: int | None


@dataclass(frozen=True, eq=False)
class CausalMask:
    """A mask, true where a token may look, that hides at least what comes after each token.

    Attributes:
        past: The scalar number of positions that came before; None if none can.
        others: What else must hold; empty if the mask is causal and nothing else.
    """

    past: ir.Value | None
    others: tuple[ir.Value, ...]


def find_cached(node: ir.Node) -> Iterator[Cached | Reject]:
    """Caches that go through `node`: one of a Concat, two of an attention operator."""
    if is_op(node, "Concat"):
        found = _joined(node)
        if found is not None:
            yield found
        return
    known = _OPERATORS.get(node.op_type, ()) if node.domain == "com.microsoft" else ()
    for before, after in _STANDARD if is_op(node, "Attention") else known:
        past = _input_behind(input_of(node, before))
        if past is not None and after < len(node.outputs):
            yield _cached(past, node.outputs[after], None, node)


def find_causal(value: ir.Value | None) -> CausalMask | None:
    """The causal mask that `value`, of truth values, is or implies; None if none is seen."""
    others: list[ir.Value] = []
    pending, found, steps = [value], None, 0
    while pending and steps < _STEP_LIMIT:
        steps += 1
        current = pending.pop()
        node = current.producer() if current is not None else None
        if current is None or _is_true(current):
            continue
        if node is not None and is_op(node, "And"):
            pending += node.inputs
        elif node is not None and is_op(node, *_RENAMING):
            pending.append(node.inputs[0])
        elif found is None and (compared := _compared(node)) is not None:
            found = compared
        else:
            others.append(current)
    return CausalMask(found.past, tuple(others)) if found is not None and not pending else None


def _joined(node: ir.Node) -> Cached | Reject | None:
    if len(node.inputs) != 2:
        return None
    past = _input_behind(node.inputs[0])
    if past is None or rank_of(past) != 4:
        return None
    if attribute(node, "axis", 0) not in (2, -2):
        return Reject("what came before is not joined over positions", label_of(node))
    if not node.outputs[0].is_graph_output():
        return Reject("past and new together are no output of the graph", label_of(node))
    return _cached(past, node.outputs[0], node.inputs[1], node)


def _cached(past: ir.Value, present: ir.Value, new: ir.Value | None, node: ir.Node) -> Cached:
    heads = past.shape[1] if past.shape is not None and len(past.shape) == 4 else None
    return Cached(past, present, new, node, heads if isinstance(heads, int) else None, last_dim(past))


def _input_behind(value: ir.Value | None) -> ir.Value | None:
    """The graph input that `value` is, or is a copy of: TorchScript joins the past with nothing first."""
    for _ in range(_STEP_LIMIT):
        node = value.producer() if value is not None else None
        if value is None or node is None:
            break
        if not is_op(node, "Identity") and not (is_op(node, "Concat") and len(node.inputs) == 1):
            return None
        value = node.inputs[0]
    return value if value is not None and value.is_graph_input() and not value.is_initializer() else None


def _compared(node: ir.Node | None) -> CausalMask | None:
    """Columns compared with rows, either way round."""
    if node is None or not is_op(node, "LessOrEqual", "GreaterOrEqual"):
        return None
    columns, rows = node.inputs if is_op(node, "LessOrEqual") else reversed(node.inputs)
    row, column = _counted(rows, -2), _counted(columns, -1)
    if row is None or column is None or column[1] is not None:
        return None
    return CausalMask(row[1], ())


def _counted(value: ir.Value | None, axis: int) -> tuple[ir.Node, ir.Value | None] | None:
    """The Range along `axis`, counted from the end, that `value` is, and what is added to it."""
    offset: ir.Value | None = None
    for _ in range(_STEP_LIMIT):
        node = value.producer() if value is not None else None
        if node is None:
            return None
        if is_op(node, "Range"):
            start, step = constant_of(node.inputs[0]), constant_of(node.inputs[2])
            plain = start is not None and step is not None and not start.any() and (step == 1).all()
            return (node, offset) if plain and axis == -1 else None
        if is_op(node, "Unsqueeze"):
            axes, rank = axes_of(node), _rank(node.outputs[0])
            if axes is None or (rank is None and any(each >= 0 for each in axes)):
                return None
            made = [each - (rank or 0) if each >= 0 else each for each in axes]
            if axis in made:
                return None
            axis, value = axis + sum(each > axis for each in made), node.inputs[0]
        elif is_op(node, "Add") and offset is None:
            side = 0 if _leads_to_range(node.inputs[0]) else 1
            offset, value = node.inputs[1 - side], node.inputs[side]
        elif is_op(node, "Cast", "Identity"):
            value = node.inputs[0]
        else:
            return None
    return None


def _rank(value: ir.Value | None, steps: int = _STEP_LIMIT) -> int | None:
    """Number of axes, counted from a Range where no shape says."""
    known = rank_of(value) if value is not None else None
    node = producer(value, "Range", "Unsqueeze", "Cast", "Identity")
    if known is not None or node is None or not steps:
        return known
    if is_op(node, "Range"):
        return 1
    below, axes = _rank(node.inputs[0], steps - 1), axes_of(node) if is_op(node, "Unsqueeze") else ()
    return None if below is None or axes is None else below + len(axes)


def _leads_to_range(value: ir.Value | None) -> bool:
    for _ in range(_STEP_LIMIT):
        node = producer(value, "Cast", "Identity", "Range", "Unsqueeze")
        if node is None or is_op(node, "Range"):
            return node is not None
        value = node.inputs[0]
    return False


def _is_true(value: ir.Value) -> bool:
    """Whether `value` is true everywhere, as exporters start a chain of conditions."""
    constant = constant_of(value)
    if constant is not None:
        return bool(constant.dtype == bool and constant.all())
    filled = producer(value, "ConstantOfShape")
    given = filled.attributes.get("value") if filled is not None else None
    return given is not None and not given.is_ref() and bool(given.as_tensor().numpy().all())

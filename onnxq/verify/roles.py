"""What each input of a model is for, as far as the graph tells: an index into a table, a mask, a shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

_MASK = re.compile(r"mask", re.IGNORECASE)
# Ops that hand the numbers of their first input on.
_CARRIERS = frozenset(
    [
        "Cast",
        "Identity",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Flatten",
        "Transpose",
        "Slice",
        "Expand",
        "Concat",
    ]
).union(["Tile", "Clip", "Where", "Split"])
_LOOKUPS = frozenset(["Gather", "GatherElements", "GatherND"])
# Inputs that give a shape or a count: (op, index of the input).
_SHAPES = frozenset(
    [
        ("Reshape", 1),
        ("Expand", 1),
        ("Tile", 1),
        ("TopK", 1),
        ("ConstantOfShape", 0),
        ("Resize", 3),
        ("OneHot", 1),
    ]
)


@dataclass(frozen=True)
class Role:
    """What an input is for.

    Attributes:
        kind: "index", "mask", "shape" or "value".
        bound: For an index, the number of rows of the smallest table it is looked up in; 0 if unknown.
    """

    kind: str = "value"
    bound: int = 0


def roles_of(model: ir.Model) -> dict[str, Role]:
    """The role of every input of the main graph, by name."""
    return {str(value.name): _role(value, model) for value in model.graph.inputs}


def _role(value: ir.Value, model: ir.Model) -> Role:
    if _MASK.search(value.name or "") and (value.dtype is None or not value.dtype.is_floating_point()):
        return Role("mask")
    bounds: list[int] = []
    for node, index, scope in _readers(value, model):
        if (node.op_type, index) in _SHAPES:
            return Role("shape")
        if node.op_type in _LOOKUPS and index == 1:
            bounds.append(_rows(node, scope))
    known = [bound for bound in bounds if bound > 0]
    if bounds:
        return Role("index", min(known, default=0))
    return Role()


Scope = dict[ir.Value, ir.Value | None]


def _readers(value: ir.Value, model: ir.Model) -> Iterator[tuple[ir.Node, int, Scope]]:
    """Uses of `value` and of what carries it on, into functions, with the caller's values by parameter."""
    pending: list[tuple[ir.Value, Scope]] = [(value, {})]
    seen: set[ir.Value] = set()
    while pending:
        current, scope = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for node, index in current.uses():
            yield node, index, scope
            function = model.functions.get(node.op_identifier())
            if function is not None and index < len(function.inputs):
                inner = dict(zip(function.inputs, node.inputs, strict=False))
                pending.append((function.inputs[index], scope | inner))
            elif node.op_type in _CARRIERS and (index == 0 or node.op_type in ("Concat", "Where")):
                pending += [(output, scope) for output in node.outputs]


def _rows(node: ir.Node, scope: Scope) -> int:
    """Number of rows of the table that `node` looks up in; 0 if unknown."""
    table = node.inputs[0]
    while table is not None and table in scope:
        table = scope[table]
    if table is None or table.shape is None:
        return 0
    axis = node.attributes.get_int("axis", 0)
    if not -len(table.shape) <= axis < len(table.shape):
        return 0
    rows = table.shape[axis]
    return rows if isinstance(rows, int) else 0

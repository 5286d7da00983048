"""What a few elementwise nodes compute, as a function of one value: evaluated, not pattern-matched.

An activation has dozens of spellings and one graph of a function. `cones` cuts the nodes above an output at
each candidate for the argument; `evaluate` computes the cut piece on numbers of our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.ir.walk import FLOATS, cast_type, is_op, root_of, scalar_of

_LIMIT = 24
"""Nodes above an output that are looked at; a tanh Gelu in mixed precision has 12."""

_erf = np.vectorize(math.erf, otypes=[np.float64])

_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Neg": np.negative,
    "Exp": np.exp,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Tanh": np.tanh,
    "Erf": _erf,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Identity": lambda x: x,
    "Cast": lambda x: x,
}


@dataclass(frozen=True)
class Cone:
    """Elementwise nodes that compute `output` from `argument` and constants of one element.

    Attributes:
        argument: The one value that varies.
        output: The result.
        nodes: The nodes between, `output`'s first.
        tolerance: The relative precision of the least precise constant among them.
    """

    argument: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]
    tolerance: float

    def evaluate(self, numbers: np.ndarray) -> np.ndarray:
        """`output` in float64, with `argument` at each of `numbers`."""
        known: dict[ir.Value, np.ndarray | float] = {self.argument: numbers}
        for node in _sorted(self.nodes, self.argument):
            known[node.outputs[0]] = _FUNCTIONS[node.op_type](*(_read(value, known) for value in node.inputs))
        return np.broadcast_to(np.asarray(known[self.output], np.float64), numbers.shape)


def cones(output: ir.Value, functions: Collection[str]) -> Iterator[Cone]:
    """Every way to read `output` as an elementwise function of one value that is read at least twice.

    Only if one of `functions` (operator names) is among the nodes above: most products are none.
    """
    above = _above(output)
    if all(node.op_type not in functions for node in above):
        return
    readers: dict[ir.Value, int] = {}
    for node in above:
        for value in node.inputs:
            if value is not None and root_of(value) is None:
                readers[value] = readers.get(value, 0) + 1
    for argument, count in readers.items():
        if count > 1 and (cone := _cut(output, argument)) is not None:
            yield cone


def _above(output: ir.Value) -> list[ir.Node]:
    """Elementwise nodes that `output` is computed by, nearest first, up to the limit."""
    found: dict[ir.Node, None] = {}
    pending = [output]
    while pending and len(found) < _LIMIT:
        node = pending.pop(0).producer()
        if node is None or node in found or not _is_elementwise(node):
            continue
        found[node] = None
        pending += [value for value in node.inputs if value is not None]
    return list(found)


def _cut(output: ir.Value, argument: ir.Value) -> Cone | None:
    """The nodes between, if nothing but `argument` and single numbers enters them."""
    found: dict[ir.Node, None] = {}
    pending, tolerance = [output], 1e-4
    while pending:
        value = pending.pop(0)
        if value is argument:
            continue
        if root_of(value) is not None:
            scalar = scalar_of(value)
            if scalar is None:
                return None
            tolerance = max(tolerance, scalar[1])
            continue
        node = value.producer()
        if node is None or not _is_elementwise(node) or len(found) >= _LIMIT:
            return None
        if node not in found:
            found[node] = None
            pending += [value for value in node.inputs if value is not None]
    return Cone(argument, output, tuple(found), tolerance)


def _is_elementwise(node: ir.Node) -> bool:
    if not is_op(node, *_FUNCTIONS) or any(value is None for value in node.inputs):
        return False
    return node.op_type != "Cast" or cast_type(node) in FLOATS


def _sorted(nodes: tuple[ir.Node, ...], argument: ir.Value) -> list[ir.Node]:
    """`nodes` with each behind those it reads."""
    done: dict[ir.Node, None] = {}
    waiting = list(nodes)
    while waiting:
        ready = [
            node
            for node in waiting
            if all(
                value is argument or value.producer() not in waiting
                for value in node.inputs
                if value is not None
            )
        ]
        done |= dict.fromkeys(ready)
        waiting = [node for node in waiting if node not in done]
    return list(done)


def _read(value: ir.Value | None, known: dict[ir.Value, np.ndarray | float]) -> np.ndarray | float:
    if value in known:
        return known[value]
    scalar = scalar_of(value)
    if scalar is None:
        raise LookupError(f"{value.name if value is not None else ''!r} is neither computed nor constant")
    return scalar[0]

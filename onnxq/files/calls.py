"""Functions of a model that call each other: never in a circle, and never into more nodes than the limit."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from onnxq.errors import UnsafeModel
from onnxq.files.limits import Limits

FunctionId: TypeAlias = tuple[str, str, str]
"""Domain, name, overload."""


@dataclass
class Body:
    """What the main graph or a function holds, subgraphs included: nodes, and how often it calls whom."""

    nodes: int = 0
    calls: dict[FunctionId, int] = field(default_factory=dict)


def check_calls(main: Body, functions: Mapping[FunctionId, Body], limits: Limits) -> None:
    """Refuse functions that call in a circle, in a long chain, or that expand into too many nodes."""
    calls = {
        name: [callee for callee in body.calls if callee in functions] for name, body in functions.items()
    }
    try:
        order = list(graphlib.TopologicalSorter(calls).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(name for _, name, _ in error.args[1])
        raise UnsafeModel(f"functions call each other in a circle: {circle}", slug="function-cycle") from None
    depths: dict[FunctionId, int] = {}
    expanded: dict[FunctionId, int] = {}
    for name in order:
        depths[name] = 1 + max((depths[callee] for callee in calls[name]), default=0)
        expanded[name] = _expanded(functions[name], expanded)
        limits.check("max_call_depth", depths[name], f"function {name[1]!r}")
    limits.check("max_nodes", _expanded(main, expanded), "graph with its functions expanded")


def _expanded(body: Body, sizes: Mapping[FunctionId, int]) -> int:
    """Nodes of `body` once every call in it is replaced by the callee's nodes."""
    return body.nodes + sum(
        (sizes[callee] - 1) * times for callee, times in body.calls.items() if callee in sizes
    )

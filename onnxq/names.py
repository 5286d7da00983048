"""Which names a model has taken, and the first that is free."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir


class Names:
    """Names of all values and nodes of a model, its subgraphs and its functions, and how many bear each.

    Args:
        model: Whose names are taken from the start.
    """

    def __init__(self, model: ir.Model) -> None:
        self._bearers = _bearers(model)
        self._numbers: dict[str, int] = {}

    def take(self, name: str) -> str:
        """`name`, or `name` with the first free number behind it; taken from now on."""
        candidate, number = name, self._numbers.get(name, 0)
        while self._bearers[candidate] > 0 or not candidate:
            number += 1
            candidate = f"{name}_{number}"
        self._numbers[name] = number
        self._bearers[candidate] += 1
        return candidate

    def release(self, name: str | None) -> None:
        """Let `name` be given again, now that its value has gone or is called otherwise."""
        self._bearers[name or ""] -= 1
        self._numbers.pop(name or "", None)


def _bearers(model: ir.Model) -> Counter[str]:
    names: Counter[str] = Counter()
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for root in roots:
        for node in root.all_nodes():
            names[node.name or ""] += 1
            names.update(value.name or "" for value in node.outputs)
        for graph in (root.graph if isinstance(root, ir.Function) else root, *root.subgraphs()):
            names.update(value.name or "" for value in graph.inputs)
            names.update(list(graph.initializers))
    return names

"""Names of nodes, by which decisions are carried from a plan, or a user, to a pass.

ONNX asks for no names of nodes, nor that they differ, and values of two functions may share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnxq.edit import label_of
from onnxq.ir.walk import nodes


def tell_apart(model: ir.Model) -> tuple[ir.Model, Mapping[str, str]]:
    """A model whose nodes all go by labels of their own.

    Args:
        model: Not changed.

    Returns:
        `model` itself if its labels differ, or else a copy in which only the first node of each label keeps
        it and the others are numbered; and the former label by each new one.
    """
    if not _repeated(model):
        return model, {}
    copy = model.clone()
    renamed: dict[str, str] = {}
    taken = {str(value.name) for node in nodes(copy) for value in node.outputs}
    taken |= {label_of(node) for node in nodes(copy)}
    for node in _repeated(copy):
        old = label_of(node)
        number = 2
        while f"{old}_{number}" in taken:
            number += 1
        node.name = f"{old}_{number}"
        taken.add(node.name)
        renamed[node.name] = old
    return copy, renamed


def is_named(label: str, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` names `label`; ``*`` stands for any text, and brackets for themselves."""
    return any(fnmatchcase(label, pattern.replace("[", "[[]")) for pattern in patterns)


def _repeated(model: ir.Model) -> list[ir.Node]:
    """Nodes that go by the label of one before them."""
    seen: set[str] = set()
    found: list[ir.Node] = []
    for node in nodes(model):
        label = label_of(node)
        if label in seen:
            found.append(node)
        seen.add(label)
    return found

"""One pass on one model: match, rewrite, and again until nothing matches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir

from onnxq.contract import AnyPass, Context, Edit, ModelPass, Pass, Reject
from onnxq.edit import label_of
from onnxq.errors import PassFailed, UnsupportedModel
from onnxq.pipeline.results import PassResult
from onnxq.pipeline.structure import copy_of, differences, structure_of
from onnxq.statistics import Statistics

# A pass that rewrites more often than this is taken to be undoing and redoing its own work.
REWRITES_PER_NODE = 8
REWRITES_AT_LEAST = 64


def apply_pass(model: ir.Model, a_pass: AnyPass, statistics: Statistics | None = None) -> PassResult:
    """Run `a_pass` on a copy of `model`, which is left as it is; weights are shared between the two.

    Every node of the main graph, of its subgraphs and of the functions is visited in the order of the file,
    until a whole round changes nothing. Only what the last round rejected is reported: earlier near matches
    may have become matches since.

    Raises:
        PassFailed: The pass raised ("pass-raised").
    """
    started = time.perf_counter()
    blank = PassResult(a_pass.name, a_pass.contract, model)
    if reason := _unmet_need(model, a_pass, statistics):
        return dataclasses.replace(blank, skipped=reason)
    if isinstance(a_pass, ModelPass):
        result = _transform(model, a_pass, blank)
    else:
        result = _rewrite(model, a_pass, statistics or Statistics(), blank)
    return dataclasses.replace(result, seconds=time.perf_counter() - started)


def _unmet_need(model: ir.Model, a_pass: AnyPass, statistics: Statistics | None) -> str:
    opset = model.opset_imports.get("", 1)
    if opset < a_pass.needs.opset:
        return f"needs opset {a_pass.needs.opset}, the model has {opset}"
    if a_pass.needs.statistics and statistics is None:
        kinds = ", ".join(sorted(kind.value for kind in a_pass.needs.statistics))
        return f"needs calibration data ({kinds}), and there is none"
    return ""


def _rewrite(model: ir.Model, a_pass: Pass, statistics: Statistics, blank: PassResult) -> PassResult:
    rejects = _Rejects()
    if not any(_match(a_pass, node, context, rejects) for node, context in _places(model, statistics)):
        return dataclasses.replace(blank, rejects=rejects.all)
    copy = copy_of(model)  # only now: most passes find nothing in most models
    edit = Edit(copy, a_pass.name)
    allowed = REWRITES_AT_LEAST + REWRITES_PER_NODE * sum(1 for _ in _live_nodes(copy))
    settled = False
    while not settled and allowed > 0:
        rejects, before = _Rejects(), len(edit.changes)
        for node, context in _places(copy, statistics):
            found = _match(a_pass, node, context, rejects)
            if found is None:
                continue
            _apply(a_pass, found, edit, node)
            allowed -= 1
            if allowed <= 0:
                break
        settled = len(edit.changes) == before
    changes = tuple(edit.changes)
    return dataclasses.replace(
        blank, model=copy if changes else model, changes=changes, rejects=rejects.all, settled=settled
    )


class _Rejects:
    """Near matches of one round, once each."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], Reject] = {}

    def add(self, reject: Reject, node: ir.Node) -> None:
        """Take note of `reject`, found at `node`."""
        named = reject if reject.node else dataclasses.replace(reject, node=label_of(node))
        self._seen.setdefault((named.reason, named.node), named)

    @property
    def all(self) -> tuple[Reject, ...]:
        return tuple(self._seen.values())


def _match(a_pass: Pass, node: ir.Node, context: Context, rejects: _Rejects) -> Any:
    """What the pass finds at `node`, or None; a reject is noted."""
    try:
        found = a_pass.match(node, context)
    except MemoryError:
        raise
    except Exception as error:
        raise _failure(a_pass, error, f"at node {label_of(node)!r}") from error
    if isinstance(found, Reject):
        rejects.add(found, node)
        return None
    return found


def _apply(a_pass: Pass, found: Any, edit: Edit, node: ir.Node) -> None:
    name = label_of(node)
    try:
        a_pass.rewrite(found, edit)
    except MemoryError:
        raise
    except Exception as error:
        raise _failure(a_pass, error, f"at node {name!r}") from error


def _places(model: ir.Model, statistics: Statistics) -> Iterator[tuple[ir.Node, Context]]:
    """Every node that is in the model when its turn comes, and what a pass may look at from there.

    Statistics are of values of the main graph: a value of a function that has the name of one is another.
    """
    contexts: dict[int, Context] = {}
    for node, opsets in _live_nodes(model):
        if id(opsets) not in contexts:
            contexts[id(opsets)] = Context(model, statistics if opsets is None else Statistics(), opsets)
        yield node, contexts[id(opsets)]


def _transform(model: ir.Model, a_pass: ModelPass, blank: PassResult) -> PassResult:
    before = structure_of(model)
    try:
        after = a_pass.transform(copy_of(model))
    except UnsupportedModel as refusal:
        return dataclasses.replace(blank, rejects=(Reject(refusal.message, ""),))
    except MemoryError:
        raise
    except Exception as error:
        raise _failure(a_pass, error, "") from error
    changes = differences(before, structure_of(after), a_pass.name)
    return dataclasses.replace(blank, model=after if changes else model, changes=changes)


def _failure(a_pass: AnyPass, error: Exception, where: str) -> PassFailed:
    place = f" {where}" if where else ""
    return PassFailed(
        f"pass {a_pass.name!r} failed{place}: {type(error).__name__}: {error}",
        hint="This is a bug in the pass; the model is as it was before it. Leave the pass out to go on.",
        slug="pass-raised",
    )


def _live_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, Mapping[str, int] | None]]:
    """Every node that is in the model when its turn comes, with the operator sets of its function if any.

    The nodes of a graph are listed when the walk enters it, so that a rewrite may remove and insert nodes:
    removed ones are passed over, with what is inside them, and inserted ones have their turn in the next
    round.
    """
    for node in _live_nodes_of(model.graph):
        yield node, None
    for function in tuple(model.functions.values()):
        for node in _live_nodes_of(function.graph):
            yield node, function.opset_imports


def _live_nodes_of(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in tuple(graph):
        if node.graph is graph:
            yield node
        for attribute in tuple(node.attributes.values()):
            if node.graph is not graph or attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _live_nodes_of(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for subgraph in attribute.as_graphs():
                    yield from _live_nodes_of(subgraph)

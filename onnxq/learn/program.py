"""An ONNX graph as a differentiable function of torch.

The graph is interpreted node by node, each operator by one small rule. A part of the graph can be run from
values to values; initializers can be replaced, and values looked at or changed on their way, which is how
quantization is imitated: a hook where a linear reads its input touches nobody else who reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxq.edit import label_of
from onnxq.errors import BackendError, UnsupportedModel, UsageProblem
from onnxq.learn.operators import RULES, Call, Rule, Tensor, tensor_of

Hook = Callable[[Tensor], Tensor]
"""Takes a value and gives what is read in its place."""

Place = tuple[str, int]
"""Where a value is read: the label of a node (its name, or else its output's), and which of its inputs."""


@dataclass(frozen=True)
class Changes:
    """What is different in one run of a program.

    Attributes:
        parameters: Tensors that take the place of initializers, by name, for all who read them.
        values: Hooks on values, by name: all readers get what the hook gives.
        reads: Hooks on single reads. One hook on several reads of the same value is called once.
    """

    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Hook] = field(default_factory=dict)
    reads: Mapping[Place, Hook] = field(default_factory=dict)


_NOTHING = Changes()


@dataclass(frozen=True)
class _Step:
    """A node, its rule, the names it reads and writes (empty: left out), and those nobody reads later."""

    label: str
    rule: Rule
    call: Call
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    done: tuple[str, ...]


class Program:
    """A part of a model's main graph, from values to values.

    Args:
        model: The model; its weights are shared, never written to.
        outputs: Names of the values to compute; None for the model's outputs.
        given: Names of values that a run is given, so that what computes them is left out. Whatever
            `outputs` need that does not come by way of these is computed from the model's own inputs.

    Attributes:
        inputs: Names of what a run must be given: inputs of the model, and those of `given` that are needed.
        outputs: Names of what a run computes.
        constants: The initializers that are read, by name.

    Raises:
        UsageProblem: The main graph has no value of that name.
        UnsupportedModel: An operator has no rule, or a constant an element type that torch lacks.
    """

    def __init__(
        self, model: ir.Model, outputs: Sequence[str] | None = None, given: Sequence[str] = ()
    ) -> None:
        values = _values_of(model)
        wanted = [str(value.name) for value in model.graph.outputs] if outputs is None else list(outputs)
        for name in (*wanted, *given):
            if name not in values:
                raise UsageProblem(f"no value named {name!r} in the model's main graph", slug="unknown-value")
        nodes = _needed(model, [values[name] for name in wanted], frozenset(given))
        read = {str(value.name) for node in nodes for value in node.inputs if value is not None} | set(wanted)
        own = [str(value.name) for value in model.graph.inputs if not value.is_initializer()]
        self.inputs = tuple(name for name in dict.fromkeys([*own, *given]) if name in read)
        self.outputs = tuple(wanted)
        self.constants = {
            name: tensor_of(value.const_value.numpy())
            for name, value in model.graph.initializers.items()
            if name in read and name not in given and value.const_value is not None
        }
        self._steps = _steps_of(model, nodes, wanted)

    def __call__(
        self, feeds: Mapping[str, Tensor | np.ndarray], changes: Changes = _NOTHING
    ) -> dict[str, Tensor]:
        """Run once.

        Args:
            feeds: A tensor or array for each of `inputs`; others are not looked at. An initializer that is an
                input of the model as well may be given, too.
            changes: What is different from the model.

        Returns:
            The outputs by name, in order.

        Raises:
            BackendError: A feed is missing ("bad-feed"), or torch failed at a node ("run-failed").
        """
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise BackendError(f"no array for {missing}", slug="bad-feed")
        values: dict[str, Tensor] = {**self.constants, **changes.parameters}
        for name in self.inputs:
            values[name] = _hooked(name, _tensor(feeds[name]), changes)
        run = _Run(values, changes)
        for step in self._steps:
            run.take(step)
        return {name: values[name] for name in self.outputs}


class _Run:
    """The values known so far in one run."""

    def __init__(self, values: dict[str, Tensor], changes: Changes) -> None:
        self._values = values
        self._changes = changes
        self._seen: dict[tuple[Hook, str], Tensor] = {}
        self._last: dict[str, list[tuple[Hook, str]]] = {}

    def take(self, step: _Step) -> None:
        """Compute one node and let go of what nobody reads any more."""
        given = [self._read(step.label, index, name) for index, name in enumerate(step.reads)]
        try:
            made = step.rule(step.call, *given)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BackendError(
                f"torch failed at node {step.label!r} ({step.call.node.op_type}): {text}", slug="run-failed"
            ) from error
        results = made if isinstance(made, tuple | list) else (made,)
        for name, value in zip(step.writes, results, strict=False):
            if name:
                self._values[name] = _hooked(name, value, self._changes)
        for name in step.done:
            self._values.pop(name, None)
            for key in self._last.pop(name, ()):
                self._seen.pop(key, None)

    def _read(self, label: str, index: int, name: str) -> Tensor | None:
        if not name:
            return None
        hook = self._changes.reads.get((label, index))
        if hook is None:
            return self._values[name]
        key = (hook, name)
        if key not in self._seen:
            self._seen[key] = hook(self._values[name])
            self._last.setdefault(name, []).append(key)
        return self._seen[key]


def _hooked(name: str, value: Tensor, changes: Changes) -> Tensor:
    hook = changes.values.get(name)
    return value if hook is None else hook(value)


def _tensor(given: Tensor | np.ndarray) -> Tensor:
    return given if isinstance(given, torch.Tensor) else tensor_of(given)


def _values_of(model: ir.Model) -> dict[str, ir.Value]:
    graph = model.graph
    made = [value for node in graph for value in node.outputs]
    return {str(value.name): value for value in (*graph.inputs, *graph.initializers.values(), *made)}


def _needed(model: ir.Model, outputs: Iterable[ir.Value], given: frozenset[str]) -> list[ir.Node]:
    """The nodes of the main graph that `outputs` need, in order, not looking behind `given`."""
    needed: set[ir.Node] = set()
    pending = list(outputs)
    while pending:
        value = pending.pop()
        node = None if value.name in given else value.producer()
        if node is not None and node not in needed:
            needed.add(node)
            pending += [each for each in node.inputs if each is not None]
    return [node for node in model.graph if node in needed]


def _steps_of(model: ir.Model, nodes: Sequence[ir.Node], kept: Sequence[str]) -> list[_Step]:
    steps: list[_Step] = []
    alive = set(kept)
    for node in reversed(nodes):  # from the end, where the last reader of a value comes first
        reads = tuple("" if value is None else str(value.name) for value in node.inputs)
        writes = tuple(str(value.name or "") for value in node.outputs)
        done = tuple(sorted({*reads, *writes} - alive - {""}))
        alive.update(reads, writes)
        call = Call(node, int(model.opset_imports.get(node.domain, 1)))
        steps.append(_Step(label_of(node), _rule_of(node), call, reads, writes, done))
    return steps[::-1]


def _rule_of(node: ir.Node) -> Rule:
    rule: Any = RULES.get(node.domain, {}).get(node.op_type)
    if rule is None:
        kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise UnsupportedModel(
            f"node {label_of(node)!r}: no gradient is known for the operator {kind}",
            hint="Learn before the model is quantized or fused, on the cleaned float model; "
            "without torch, ranges and rounding are chosen by methods that run any operator.",
            slug="no-gradient-rule",
        )
    return rule  # type: ignore[no-any-return]

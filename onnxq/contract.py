"""What a pass is: what it promises, what it needs, and the only way it may change a graph."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.statistics import Statistic, Statistics

Attributes = Mapping[str, Any]


class Contract(enum.Enum):
    """What a pass promises about the function that the model computes."""

    BITWISE = "bitwise"
    """The same bits on an unoptimised runtime, for every input."""
    REASSOCIATES = "reassociates"
    """The same real function; only floating-point rounding may differ."""
    LOSSY = "lossy"
    """Another function, close to the old one; needs an error budget."""


@dataclass(frozen=True)
class Needs:
    """What a pass cannot work without.

    Attributes:
        statistics: Kinds of calibration statistics, gathered for the values that `Pass.observe` names.
        opset: Lowest version of the default operator set of a model the pass can rewrite.
    """

    statistics: frozenset[Statistic] = frozenset()
    opset: int = 1


@dataclass(frozen=True)
class Reject:
    """A near match that a pass leaves alone, and why, in words for the report."""

    reason: str
    node: str


@dataclass(frozen=True)
class Example:
    """One graph in ONNX text form as evidence for or against a pass.

    Attributes:
        text: The model, as `onnx.parser` reads it.
        reason: For a graph the pass must leave alone: part of the reason it must give ("" if it is no near match).
        constants: Arrays for initializers declared in the text without data, by name.
        statistics: Calibration statistics for the pass to read.
    """

    text: str
    reason: str = ""
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)


@dataclass(frozen=True)
class Examples:
    """A pass's own proof: graphs on which it fires, and graphs on which it holds still."""

    fires: Sequence[Example] = ()
    holds: Sequence[Example] = ()


@dataclass(frozen=True)
class Context:
    """What a pass may look at besides the node in hand."""

    model: ir.Model
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def opset(self) -> int:
        """Version of the model's default operator set."""
        return int(self.model.opset_imports.get("", 1))


@dataclass(frozen=True)
class Change:
    """One entry of the journal: a pass made, rewired or removed something at a node."""

    owner: str
    action: str
    node: str
    detail: str = ""


class Pass(ABC):
    """A rewrite of one spot of a graph. Subclasses are frozen dataclasses; their fields are the options.

    The pipeline walks every graph, subgraph and function in order, calls `match` on each node and `rewrite`
    on each match, until nothing matches any more. A pass keeps no state and knows no other pass.
    """

    name: ClassVar[str]
    contract: ClassVar[Contract]
    needs: ClassVar[Needs] = Needs()

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """Values of `model` whose statistics the pass will read."""
        return ()

    @abstractmethod
    def match(self, node: ir.Node, context: Context) -> Any | Reject | None:
        """What was found at `node`; a `Reject` for a near match; None for "not my shape"."""

    @abstractmethod
    def rewrite(self, found: Any, edit: Edit) -> None:
        """Change the graph, through `edit` alone."""

    @classmethod
    def examples(cls) -> Examples:
        """Graphs that prove the pass, run by the contract suite."""
        return Examples()


class ModelPass(ABC):
    """A rewrite of a whole model by code that does not go through `Edit`, such as a ready-made pass.

    Whether it changed anything is decided by comparing the model before and after, never by its word.
    """

    name: ClassVar[str]
    contract: ClassVar[Contract]
    needs: ClassVar[Needs] = Needs()

    @abstractmethod
    def transform(self, model: ir.Model) -> ir.Model:
        """The rewritten model; `model` itself may be changed or not."""

    @classmethod
    def examples(cls) -> Examples:
        """Graphs that prove the pass, run by the contract suite."""
        return Examples()


AnyPass = Pass | ModelPass


class Edit:
    """The only way a pass changes a model. Every call is written into `changes`.

    Constants are never written in place: a new array makes a new initializer, so that whoever else reads the old
    one (another node, a subgraph, a caller overriding it) is untouched.

    Args:
        model: The model that is edited.
        owner: Name of the pass, recorded in the journal and on each new node's ``metadata_props["onnxq.pass"]``.
    """

    def __init__(self, model: ir.Model, owner: str) -> None:
        self.model = model
        self.owner = owner
        self.changes: list[Change] = []
        self._names = _names_of(model)

    def unique(self, name: str) -> str:
        """`name`, or `name` with the first free number behind it; reserved from now on."""
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def constant(self, array: np.ndarray, name: str, *, near: ir.Node) -> ir.Value:
        """A new constant that `near` can read: an initializer of its graph, or a node inside a function body.

        Args:
            array: The data, copied by reference; any ONNX element type.
            name: Wished name; made unique.
            near: A node of the graph that will read the constant. In a function body the constant is put before it.
        """
        tensor = ir.tensor(np.asarray(array, order="C"), name=self.unique(name))
        owner = _graph_of(near)
        in_function = any(function.graph is owner for function in self.model.functions.values())
        if isinstance(owner, ir.Graph) and not in_function:
            value = ir.Value(
                name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            owner.register_initializer(value)
            return value
        (value,) = self.insert("Constant", [], {"value": tensor}, before=near, names=[str(tensor.name)])
        value.const_value = tensor
        return value

    def insert(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        *,
        before: ir.Node,
        names: Sequence[str],
        domain: str = "",
        like: ir.Value | None = None,
    ) -> tuple[ir.Value, ...]:
        """A new node in front of `before`; returns its outputs, named after `names` (made unique).

        `like` lends its type and shape to the first output. A domain that the model does not import yet is imported.
        """
        outputs = [ir.Value(name=self.unique(name)) for name in names]
        if like is not None:
            outputs[0].type, outputs[0].shape = like.type, like.shape
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, outputs=outputs, name=self.unique(f"{names[0]}/{op_type}"))
        node.metadata_props["onnxq.pass"] = self.owner
        _graph_of(before).insert_before(before, node)
        self.model.opset_imports.setdefault(domain, 1)
        self._note("insert", node, op_type)
        return tuple(node.outputs)

    def rewire(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Let input `index` of `node` read `value`; the node's inputs are extended if they are too few."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        node.replace_input_with(index, value)
        self._note("rewire", node, f"input {index}")
        if old is not None:
            _drop_constant_if_unused(old)

    def replace_constant(self, node: ir.Node, index: int, array: np.ndarray) -> ir.Value:
        """Give input `index` of `node` a new constant in place of the old one, which other readers keep."""
        old = node.inputs[index]
        name = old.name if old is not None and old.name else f"{node.name}_constant"
        value = self.constant(array, name, near=node)
        self.rewire(node, index, value)
        return value

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let every reader of `old` read `new`; a graph output keeps its name, type and shape."""
        node = new.producer()
        if old.is_graph_output():
            new = self._stand_in(old, new)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self._note("replace", node or old.producer(), f"{old.name} by {new.name}")

    def set_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Set one attribute of `node`."""
        node.attributes[name] = ir.convenience.convert_attribute(name, value)
        self._note("attribute", node, name)

    def remove(self, node: ir.Node) -> None:
        """Remove `node`, whose outputs nobody reads any more, and the constants only it read."""
        inputs = list(node.inputs)
        self._note("remove", node, node.op_type)
        _graph_of(node).remove(node, safe=True)
        for value in inputs:
            if value is not None:
                _drop_constant_if_unused(value)

    def remove_unused(self, node: ir.Node) -> None:
        """Remove `node` and then its producers, as far up as nobody reads them."""
        pending = [node]
        while pending:
            candidate = pending.pop()
            if candidate.graph is None or any(out.uses() or out.is_graph_output() for out in candidate.outputs):
                continue
            producers = [value.producer() for value in candidate.inputs if value is not None]
            self.remove(candidate)
            pending += [producer for producer in producers if producer is not None]

    def _stand_in(self, old: ir.Value, new: ir.Value) -> ir.Value:
        """A value that may carry the output name of `old`: `new`, or a copy where `new` has a public name itself."""
        producer = new.producer()
        anchor = old.producer()
        if producer is None or new.is_graph_output() or producer.graph is not (anchor.graph if anchor else None):
            if anchor is None:
                raise ValueError(f"{old.name!r} is a graph input and a graph output")
            (new,) = self.insert("Identity", [new], before=anchor, names=[f"{old.name}_copy"])
            producer = new.producer()
        public = old.name
        old.name = self.unique(f"{public}_replaced")
        new.name, new.type, new.shape = public, old.type, old.shape
        new.doc_string = old.doc_string
        new.metadata_props.update(old.metadata_props)
        return new

    def _note(self, action: str, node: ir.Node | None, detail: str) -> None:
        self.changes.append(Change(self.owner, action, (node.name or "") if node is not None else "", detail))


def _graph_of(node: ir.Node) -> ir.Graph | ir.Function:
    if node.graph is None:
        raise ValueError(f"node {node.name!r} is in no graph")
    return node.graph


def _names_of(model: ir.Model) -> set[str]:
    """Names of all values and nodes of the model, its subgraphs and its functions."""
    names: set[str] = set()
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            names.add(node.name or "")
            names.update(value.name or "" for value in node.outputs)
    for part in model.graphs():
        names.update(value.name or "" for value in part.inputs)
        names.update(part.initializers)
    for function in model.functions.values():
        names.update(value.name or "" for value in function.inputs)
    return names


def _drop_constant_if_unused(value: ir.Value) -> None:
    """Take an initializer out of its graph once nothing reads it and no caller could set it."""
    if value.uses() or value.is_graph_input() or value.is_graph_output() or not value.is_initializer():
        return
    graph = value.graph
    if isinstance(graph, ir.Graph) and value.name in graph.initializers:
        del graph.initializers[value.name]

"""The only way a pass changes a graph: every call keeps the graph whole and is written into a journal."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.names import Names

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One entry of the journal: a pass made, rewired or removed something at a node."""

    owner: str
    action: str
    node: str
    detail: str = ""


class Edit:
    """The only way a pass changes a model. Every call is written into `changes`.

    Constants are never written in place: a new array makes a new initializer, so that whoever else reads the
    old one (another node, a subgraph, a caller overriding it) is untouched. A constant goes with its last
    reader, and comes back if a later call reads it again.

    Args:
        model: The model that is edited.
        owner: Name of the pass, for the journal and each new node's ``metadata_props["onnxq.pass"]``.
    """

    def __init__(self, model: ir.Model, owner: str) -> None:
        self.model = model
        self.owner = owner
        self.changes: list[Change] = []
        self._names = Names(model)
        self._functions = {function.graph: function for function in model.functions.values()}
        self._made: set[ir.Node] = set()
        self._dropped: dict[ir.Value, ir.Graph] = {}

    def unique(self, name: str) -> str:
        """`name`, or `name` with the first free number behind it; reserved from now on."""
        return self._names.take(name)

    def constant(self, array: np.ndarray, name: str, *, near: ir.Node) -> ir.Value:
        """A new constant that `near` can read: an initializer of its graph, or a node inside a function body.

        Args:
            array: The data, any shape, any ONNX element type. Kept by reference: do not write to it again.
            name: Wished name; made unique.
            near: A node of the graph that will read the constant; in a function body it is put before that.
        """
        data = np.asarray(array, order="C")  # not ascontiguousarray, which makes a vector of a scalar
        graph = _graph_of(near)
        if graph in self._functions:  # a function has no initializers
            node = self._place("Constant", [], {"value": ir.tensor(data)}, "", [name], before=near)
            value = node.outputs[0]
            value.const_value = ir.tensor(data, name=value.name)
            value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(data.shape)
            return value
        tensor = ir.tensor(data, name=self.unique(name))
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(data.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        graph.register_initializer(value)
        self._note("constant", near, str(value.name))
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

        `like` lends its type and shape to the first output. An attribute that is None is left out. A domain
        that the graph does not import yet is imported.

        Raises:
            ValueError: `before` is in no graph any more, or no version of the default domain is known.
        """
        node = self._place(op_type, inputs, attributes or {}, domain, names, before=before)
        if like is not None:
            _lend(like, node.outputs[0])
        return tuple(node.outputs)

    def rewire(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Let input `index` of `node` read `value`; the node's inputs are extended if they are too few."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        if old is value:
            return
        self._revive(value, node)
        node.replace_input_with(index, value)
        self._note("rewire", node, f"input {index}")
        self._drop_unread([old])

    def replace_constant(self, node: ir.Node, index: int, array: np.ndarray) -> ir.Value:
        """Give input `index` of `node` a new constant in place of the old one, which other readers keep."""
        old = node.inputs[index] if index < len(node.inputs) else None
        name = old.name if old is not None and old.name else f"{label_of(node)}_constant"
        value = self.constant(array, name, near=node)
        self.rewire(node, index, value)
        return value

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let every reader of `old` read `new`; a graph output keeps its name, type and shape.

        Nodes that this editor inserted between `old` and `new` go on reading `old`, so that a value can be
        wrapped: ``replace(x, insert("Cast", [x], ...))``.

        Raises:
            ValueError: `old` is a graph output that no node computes (a graph input, or an initializer).
        """
        if old is new:
            return
        self._note("replace", new.producer() or old.producer(), f"{old.name} by {new.name}")
        between = self._between(old, new)
        for node, index in old.uses():
            if node not in between:
                self._revive(new, node)
                node.replace_input_with(index, new)
        if old.is_graph_output():
            self._hand_over_output(old, new)
        elif new.shape is None or new.type is None:
            _lend(old, new)
        self._drop_unread([old])

    def rename(self, value: ir.Value, name: str) -> None:
        """Give `value` another name (made unique), because it holds other numbers from now on.

        Names key calibration statistics: a tensor that is scaled must not be looked up under its old name.

        Raises:
            ValueError: `value` is an input or output of its graph, whose name belongs to the caller.
        """
        if value.is_graph_input() or value.is_graph_output():
            raise ValueError(f"{value.name!r} is an input or output of its graph; its name is not ours")
        old = value.name
        self._names.release(old)
        _rename(value, self.unique(name))
        self._note("rename", value.producer(), f"{old} to {value.name}")

    def hand_over(self, old: ir.Value, new: ir.Value, name: str) -> None:
        """Give `new` the name of `old` and its place as a graph output; `old` is called `name` (made unique).

        For a value that holds other numbers from now on, next to one that holds the old ones. Whoever reads
        `old` goes on reading it.

        Raises:
            ValueError: The name of one of them is not ours: a graph input, or an output but for `old`.
        """
        public, is_output = str(old.name), old.is_graph_output()
        if is_output:
            self._note("hand over", new.producer(), f"output {public}")
            self._hand_over_output(old, new)
        self.rename(old, name)
        if not is_output:
            self.rename(new, public)

    def take_over(self, old: ir.Value, new: ir.Value) -> None:
        """Let `new` stand where `old` stood, under its name; what computed `old` alone goes.

        For a rewrite that computes the same tensor in another way: statistics by name still fit.
        """
        name, public, producer = str(old.name), old.is_graph_output(), old.producer()
        self.replace(old, new)
        if producer is not None:
            self.remove_unused(producer)
        if not public:
            self.rename(new, name)

    def remark(self, node: ir.Node, text: str) -> None:
        """Write into the journal what was decided about `node`, and why."""
        self._note("remark", node, text)

    def set_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Set one attribute of `node`; None takes it away."""
        if value is None:
            node.attributes.pop(name, None)
        else:
            node.attributes[name] = ir.convenience.convert_attribute(name, _plain(value))
        self._note("attribute", node, name)

    def remove(self, node: ir.Node) -> None:
        """Remove `node`, whose outputs nobody reads any more, and the constants only it read.

        Raises:
            ValueError: Somebody still reads an output of `node`, or it is in no graph.
        """
        if node.graph is None and any(value in self._dropped for value in node.outputs):
            return  # a Constant node that already went with its last reader
        self._take_out(node)

    def remove_unused(self, node: ir.Node) -> None:
        """Remove `node` and then its producers, as far up as nobody reads them."""
        pending = [node]
        while pending:
            candidate = pending.pop()
            if candidate.graph is None or any(
                out.uses() or out.is_graph_output() for out in candidate.outputs
            ):
                continue
            read = self._take_out(candidate)
            pending += [producer for value in read if (producer := value.producer()) is not None]

    def _place(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes,
        domain: str,
        names: Sequence[str],
        *,
        before: ir.Node,
    ) -> ir.Node:
        """A new node in front of `before`, in the journal."""
        graph = _graph_of(before)
        self._import(domain, graph)
        for value in inputs:
            self._revive(value, before)
        outputs = [ir.Value(name=self.unique(name)) for name in names]
        present = {name: _plain(value) for name, value in attributes.items() if value is not None}
        name = self.unique(f"{names[0]}/{op_type}")
        node = ir.node(op_type, inputs, present, domain=domain, outputs=outputs, name=name)
        node.metadata_props["onnxq.pass"] = self.owner
        graph.insert_before(before, node)
        self._made.add(node)
        self._note("insert", node, op_type)
        return node

    def _import(self, domain: str, graph: ir.Graph) -> None:
        """Import `domain` where it is missing: in the model, and in the function around `graph`."""
        scopes: list[dict[str, int]] = [self.model.opset_imports]
        function = self._functions.get(graph) or self._function_around(graph)
        if function is not None:
            scopes.append(function.opset_imports)
        known = [scope[domain] for scope in (*scopes, *self._all_imports()) if domain in scope]
        for scope in scopes:
            if domain in scope:
                continue
            if not known and not domain:
                raise ValueError("the model imports no version of the default operator set")
            scope[domain] = known[0] if known else 1

    def _all_imports(self) -> Iterator[dict[str, int]]:
        yield from (function.opset_imports for function in self._functions.values())

    def _function_around(self, graph: ir.Graph) -> ir.Function | None:
        """The function one of whose subgraphs is `graph`."""
        if graph is self.model.graph or not self._functions:
            return None
        return next(
            (function for function in self._functions.values() if graph in function.subgraphs()), None
        )

    def _between(self, old: ir.Value, new: ir.Value) -> set[ir.Node]:
        """Nodes this editor made on the way up from `new`: if they read `new`, a cycle would close."""
        found: set[ir.Node] = set()
        pending = [new.producer()]
        while pending:
            node = pending.pop()
            if node is None or node in found or node not in self._made:
                continue
            found.add(node)
            pending += [value.producer() for value in node.inputs if value is not None and value is not old]
        return found

    def _hand_over_output(self, old: ir.Value, new: ir.Value) -> None:
        """Put `new`, or a copy of it, in the place that `old` has among the outputs of its graph."""
        anchor, graph = old.producer(), old.graph
        if anchor is None or graph is None:
            raise ValueError(f"{old.name!r} is a graph output that no node computes")
        producer = new.producer()
        if producer is None or new.is_graph_output() or producer.graph is not anchor.graph:
            node = self._place("Identity", [new], {}, "", [f"{old.name}_copy"], before=anchor)
            if producer is not None and producer.graph is anchor.graph:
                graph.remove(node)  # `new` may be computed after `old` was
                graph.insert_after(producer, node)
            new = node.outputs[0]
        public = str(old.name)
        _rename(old, self.unique(f"{public}_replaced"))
        _rename(new, public)
        _lend(old, new)
        new.doc_string = old.doc_string
        new.metadata_props.update(old.metadata_props)
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new

    def _take_out(self, node: ir.Node) -> list[ir.Value]:
        """Remove `node` with everything inside it; returns what it read."""
        graph = _graph_of(node)
        inside = [inner for subgraph in _subgraphs_of(node) for inner in subgraph.all_nodes()]
        read = [value for reader in (node, *inside) for value in reader.inputs if value is not None]
        graph.remove(node, safe=True)
        for out in node.outputs:
            self._names.release(out.name)
        for inner in inside:  # what a subgraph captured is read by one less
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
        self._note("remove", node, node.op_type)
        self._drop_unread(read)
        return read

    def _drop_unread(self, values: Iterable[ir.Value | None]) -> None:
        """Take constants out of their graph once nothing reads them and no caller could set them."""
        for value in values:
            if value is None or value.uses() or value.is_graph_input() or value.is_graph_output():
                continue
            graph, producer = value.graph, value.producer()
            if graph is None:
                continue
            if value.is_initializer() and graph.initializers.get(str(value.name)) is value:
                del graph.initializers[str(value.name)]
                self._dropped[value] = graph
            elif producer is not None and producer.op_type == "Constant" and producer.domain == "":
                graph.remove(producer)
                self._dropped[value] = graph

    def _revive(self, value: ir.Value | None, reader: ir.Node) -> None:
        """Put a dropped constant back, now that `reader` will read it."""
        if value is None or value not in self._dropped:
            return
        graph = self._dropped.pop(value)
        producer = value.producer()
        if producer is None:
            graph.register_initializer(value)
        else:  # in front of everything, where any reader can see it
            first = next(iter(graph), None)
            graph.insert_before(first, producer) if first is not None else graph.append(producer)

    def _note(self, action: str, node: ir.Node | None, detail: str) -> None:
        self.changes.append(Change(self.owner, action, label_of(node) if node is not None else "", detail))


def label_of(node: ir.Node) -> str:
    """What to call `node` in a report: its name, or else that of its first named output."""
    return node.name or next((str(out.name) for out in node.outputs if out.name), node.op_type)


def _graph_of(node: ir.Node) -> ir.Graph:
    if node.graph is None:
        raise ValueError(f"node {label_of(node)!r} is in no graph")
    return node.graph


def _subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _lend(source: ir.Value, target: ir.Value) -> None:
    """Give `target` the type and shape of `source`, as copies, since both can be written to."""
    target.type = copy.deepcopy(source.type)
    target.shape = source.shape.copy() if source.shape is not None else None


def _rename(value: ir.Value, name: str) -> None:
    """Rename `value` and leave the name of its tensor, which a copy of the model may share."""
    tensor, value.const_value = value.const_value, None
    value.name = name
    value.const_value = tensor


def _plain(value: Any) -> Any:
    """`value` as an attribute takes it: numpy's scalars are Python's, arrays are tensors."""
    if isinstance(value, np.generic):
        return value.item()
    return ir.tensor(value) if isinstance(value, np.ndarray) else value

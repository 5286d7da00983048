"""A model is judged as a message, before anything is built from it.

Refused here: what a hostile model would ask for (sizes, depths, cycles, files elsewhere), what contradicts
itself, and what the graph library underneath would drop without a word. Whatever passes is kept whole.
"""

from __future__ import annotations

import graphlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

import onnx
import onnx_ir as ir
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from onnxq.errors import ExternalDataError, InvalidModel, UnsafeModel, UnsupportedModel
from onnxq.files.external import DataFolder, Reference
from onnxq.files.limits import Limits

FunctionId: TypeAlias = tuple[str, str, str]
Scopes: TypeAlias = tuple[set[str], ...]
"""Names of values by graph, the outermost first."""


def check_model(proto: onnx.ModelProto, folder: DataFolder, limits: Limits) -> None:
    """Refuse a model that is unsafe, contradicts itself, or would lose something by being loaded.

    Args:
        proto: The model, with its external data still outside.
        folder: Where its external data has to be; every reference is opened and measured.
        limits: Bounds on sizes, depths and counts.

    Raises:
        UnsafeModel: A limit, a file outside the folder, functions that call each other in a circle.
        InvalidModel: Names that are missing or given twice, dimensions below zero, unknown element types.
        UnsupportedModel: Sparse tensors, training information, map types, fields of a newer ONNX.
    """
    _check_header(proto)
    walk = _Walk(folder, limits)
    walk.graph(proto.graph, "graph", (), 1)
    bodies: dict[FunctionId, _Body] = {}
    for function in proto.functions:
        name = _function_id(function)
        if name in bodies:
            raise InvalidModel(f"function {'::'.join(name)} is defined twice", slug="duplicate-function")
        bodies[name] = walk.function(function)
    _check_calls(walk.bodies[0], bodies, limits)


def _check_header(proto: onnx.ModelProto) -> None:
    """Refuse a model by its outermost fields."""
    if proto.ir_version > onnx.IR_VERSION:
        raise UnsupportedModel(
            f"the model has IR version {proto.ir_version}; this onnx package knows {onnx.IR_VERSION}",
            hint="Upgrade it: pip install --upgrade onnx.",
            slug="newer-ir",
        )
    if not proto.opset_import:
        raise InvalidModel("the model imports no operator set", hint="It may be cut short.", slug="no-opset")
    if proto.training_info:
        raise _unsupported("training-info", "the model", "training information", "Export it for inference.")
    _check_message(proto, "the model")
    _distinct((_domain(opset.domain) for opset in proto.opset_import), "operator set", "the model")
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("elem_type"):
            raise InvalidModel(f"value {value.name!r} has no element type", slug="no-element-type")


@dataclass
class _Body:
    """What the main graph or a function holds, subgraphs included: nodes, and how often it calls whom."""

    nodes: int = 0
    calls: dict[FunctionId, int] = field(default_factory=dict)


@dataclass
class _Walk:
    """A walk over every message of a model that can hold a tensor or a name."""

    folder: DataFolder
    limits: Limits
    bodies: list[_Body] = field(default_factory=lambda: [_Body()])
    total_nodes: int = 0
    total_bytes: int = 0

    def graph(self, graph: onnx.GraphProto, where: str, outer: Scopes, depth: int) -> None:
        """Check one graph that can see the names `outer` of the graphs around it."""
        self.limits.check("max_nesting", depth, where)
        if graph.sparse_initializer:
            for sparse in graph.sparse_initializer:
                self.sparse(sparse, where)
            raise _unsupported("sparse-initializer", where, "sparse initializers", "Store them dense.")
        _check_message(graph, where)
        for initializer in graph.initializer:
            if not initializer.name:
                raise InvalidModel(f"{where}: an initializer has no name", slug="unnamed-initializer")
            self.tensor(initializer, f"{where}: initializer {initializer.name!r}")
        _distinct((tensor.name for tensor in graph.initializer), "initializer", where)
        _distinct((value.name for value in graph.input), "input", where)
        for value in (*graph.input, *graph.output, *graph.value_info):
            _check_type(value.type, f"{where}: value {value.name!r}")
        local = [*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)]
        scopes = self.nodes(graph.node, where, local, outer, depth)
        _defined((value.name for value in graph.output), scopes, f"{where}: output")

    def function(self, function: onnx.FunctionProto) -> _Body:
        """Check one function of the model."""
        where = f"function {function.name!r}"
        self.bodies.append(_Body())
        _check_message(function, where)
        _distinct((_domain(opset.domain) for opset in function.opset_import), "operator set", where)
        _distinct(function.input, "input", where)
        _distinct([*function.attribute, *(a.name for a in function.attribute_proto)], "attribute", where)
        for attribute in function.attribute_proto:
            if attribute.HasField("g") or attribute.graphs:
                raise _unsupported("graph-default", where, "a graph as a default", "")
            self.attribute(attribute, where, (), 1)
        scopes = self.nodes(function.node, where, function.input, (), 1)
        _defined(function.output, scopes, f"{where}: output")
        return self.bodies[-1]

    def nodes(
        self, nodes: Sequence[onnx.NodeProto], where: str, local: Iterable[str], outer: Scopes, depth: int
    ) -> Scopes:
        """Check the nodes of one graph, in any order; returns the names that they can see."""
        self.bodies[-1].nodes += len(nodes)
        self.total_nodes += len(nodes)
        self.limits.check("max_nodes", self.total_nodes, where)
        scopes = (*outer, set(chain(local, *(node.output for node in nodes))))
        for node in nodes:
            here = f"{where}: node {node.name or node.op_type!r}"
            calls = self.bodies[-1].calls
            calls[_callee(node)] = calls.get(_callee(node), 0) + 1
            _check_message(node, here)
            _defined(node.input, scopes, f"{here}: input")
            _distinct((attribute.name for attribute in node.attribute), "attribute", here)
            for attribute in node.attribute:
                self.attribute(attribute, f"{here}: attribute {attribute.name!r}", scopes, depth)
        return scopes

    def attribute(self, attribute: onnx.AttributeProto, where: str, scopes: Scopes, depth: int) -> None:
        """Check one attribute and all it holds."""
        if attribute.type == onnx.AttributeProto.UNDEFINED:
            raise InvalidModel(f"{where} has no type", slug="untyped-attribute")
        if attribute.HasField("t"):
            self.tensor(attribute.t, where)
        for tensor in attribute.tensors:
            self.tensor(tensor, where)
        sparse = [
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            *attribute.sparse_tensors,
        ]
        for tensor in sparse:
            self.sparse(tensor, where)
        if sparse:
            raise _unsupported("sparse-attribute", where, "sparse tensors", "Store it dense.")
        if attribute.HasField("g"):
            self.graph(attribute.g, where, scopes, depth + 1)
        for graph in attribute.graphs:
            self.graph(graph, where, scopes, depth + 1)
        for type_proto in (*([attribute.tp] if attribute.HasField("tp") else []), *attribute.type_protos):
            _check_type(type_proto, where)

    def sparse(self, tensor: onnx.SparseTensorProto, where: str) -> None:
        """Check the two tensors of a sparse one."""
        self.tensor(tensor.values, f"{where}: sparse values")
        self.tensor(tensor.indices, f"{where}: sparse indices")

    def tensor(self, tensor: onnx.TensorProto, where: str) -> None:
        """Check the size of one tensor, and its external data if it has any."""
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        error = ExternalDataError if external else InvalidModel
        self.limits.check("max_rank", len(tensor.dims), where)
        if any(dimension < 0 for dimension in tensor.dims):
            raise error(f"{where}: dimensions {list(tensor.dims)} below zero", slug="negative-dims")
        nbytes = nbytes_of(tensor, where)
        self.limits.check("max_tensor_bytes", nbytes, where)
        self.total_bytes += nbytes
        self.limits.check("max_total_bytes", self.total_bytes, where)
        _check_message(tensor, where)
        if tensor.HasField("segment"):
            raise _unsupported("segment", where, "only a part of its data", "")
        if external and tensor.data_type == onnx.TensorProto.STRING:
            raise error(f"{where}: strings cannot be external data", slug="external-strings")
        if external:
            self.folder.read(Reference.of(tensor, nbytes, where))


def nbytes_of(tensor: onnx.TensorProto, where: str) -> int:
    """Bytes that the type and dimensions of a tensor ask for; a string counts as one byte."""
    count: int = math.prod(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        return count
    try:
        return int(-(-count * ir.DataType(tensor.data_type).bitwidth // 8))
    except (TypeError, ValueError):
        raise InvalidModel(
            f"{where}: unknown element type {tensor.data_type}", slug="unknown-dtype"
        ) from None


def _check_calls(main: _Body, functions: Mapping[FunctionId, _Body], limits: Limits) -> None:
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


def _expanded(body: _Body, sizes: Mapping[FunctionId, int]) -> int:
    """Nodes of `body` once every call in it is replaced by the callee's nodes."""
    return body.nodes + sum(
        (sizes[callee] - 1) * times for callee, times in body.calls.items() if callee in sizes
    )


def _function_id(function: onnx.FunctionProto) -> FunctionId:
    return _domain(function.domain), function.name, function.overload


def _callee(node: onnx.NodeProto) -> FunctionId:
    return _domain(node.domain), node.op_type, node.overload


def _domain(name: str) -> str:
    """The default domain has two spellings."""
    return "" if name == "ai.onnx" else name


def _check_message(message: Message, where: str) -> None:
    """Refuse fields that this version of onnx does not know, and metadata keys given twice."""
    if len(UnknownFieldSet(message)):
        raise _unsupported(
            "unknown-field", where, "fields of a newer ONNX", "Upgrade: pip install --upgrade onnx."
        )
    metadata = getattr(message, "metadata_props", ())
    if metadata:
        _distinct((entry.key for entry in metadata), "metadata", where)


def _check_type(message: onnx.TypeProto, where: str) -> None:
    """Refuse types that a loaded model cannot express."""
    for inner in _nested_types(message):
        kind = inner.WhichOneof("value")
        if kind in ("map_type", "opaque_type"):
            raise _unsupported(f"{kind.split('_')[0]}-type", where, f"{kind.replace('_', ' ')}s", "")


def _nested_types(message: onnx.TypeProto) -> Iterator[onnx.TypeProto]:
    """`message` and the element types inside it."""
    yield message
    if message.HasField("sequence_type"):
        yield from _nested_types(message.sequence_type.elem_type)
    if message.HasField("optional_type"):
        yield from _nested_types(message.optional_type.elem_type)


def _distinct(names: Iterable[str], what: str, where: str) -> None:
    """Refuse a name given twice, of which one would be lost."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidModel(
                f"{where}: {what} {name!r} is given twice", slug=f"duplicate-{what.replace(' ', '-')}"
            )
        seen.add(name)


def _defined(names: Iterable[str], scopes: Scopes, where: str) -> None:
    """Refuse a name that nothing produces."""
    for name in names:
        if name and not any(name in scope for scope in reversed(scopes)):
            raise InvalidModel(f"{where} {name!r} is produced by nothing", slug="undefined-value")


def _unsupported(slug: str, where: str, what: str, hint: str) -> UnsupportedModel:
    return UnsupportedModel(f"{where} has {what}, which onnxq cannot keep", hint=hint, slug=slug)

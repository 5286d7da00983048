"""A model is judged as a message, before anything is built from it.

Refused here: what a hostile model would ask for (sizes, depths, cycles, files elsewhere), what contradicts
itself, and what the graph library underneath would drop without a word. Whatever passes is kept whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from onnxq.errors import ExternalDataError, InvalidModel, UnsupportedModel
from onnxq.files.calls import Body, FunctionId, check_calls
from onnxq.files.external import DataFolder, Reference
from onnxq.files.limits import Limits
from onnxq.files.messages import check_messages

Scopes: TypeAlias = tuple[set[str], ...]
"""Names of values by graph, the outermost first."""
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


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
    check_messages(proto)
    _check_header(proto)
    walk = _Walk(folder, limits)
    walk.graph(proto.graph, "graph", (), 1)
    bodies: dict[FunctionId, Body] = {}
    for function in proto.functions:
        name = _function_id(function)
        if name in bodies:
            raise InvalidModel(f"function {'::'.join(name)} is defined twice", slug="duplicate-function")
        bodies[name] = walk.function(function)
    check_calls(walk.bodies[0], bodies, limits)


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
    _distinct((_domain(opset.domain) for opset in proto.opset_import), "operator set", "the model")
    for value in (*proto.graph.input, *proto.graph.output):
        _check_element_type(value.type, f"value {value.name!r}")


@dataclass
class _Walk:
    """A walk over every message of a model that can hold a tensor or a name."""

    folder: DataFolder
    limits: Limits
    bodies: list[Body] = field(default_factory=lambda: [Body()])
    total_nodes: int = 0
    total_bytes: int = 0

    def graph(self, graph: onnx.GraphProto, where: str, outer: Scopes, depth: int) -> None:
        """Check one graph that can see the names `outer` of the graphs around it."""
        self.limits.check("max_nesting", depth, where)
        for sparse in graph.sparse_initializer:
            self.sparse(sparse, where)
            raise _unsupported("sparse-initializer", where, "sparse initializers", "Store them dense.")
        for initializer in graph.initializer:
            self.tensor(initializer, f"{where}: initializer {initializer.name!r}")
        _distinct((tensor.name for tensor in graph.initializer), "initializer", where)
        _distinct((value.name for value in graph.input), "input", where)
        _named((tensor.name for tensor in graph.initializer), "initializer", where)
        _named((value.name for value in graph.input), "input", where)
        _named((value.name for value in graph.output), "output", where)
        for value in (*graph.input, *graph.output, *graph.value_info):
            _check_type(value.type, f"{where}: value {value.name!r}")
        local = [*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)]
        scopes = self.nodes(graph.node, where, local, outer, depth)
        _defined((value.name for value in graph.output), scopes, f"{where}: output")

    def function(self, function: onnx.FunctionProto) -> Body:
        """Check one function of the model."""
        where = f"function {function.name!r}"
        self.bodies.append(Body())
        _distinct((_domain(opset.domain) for opset in function.opset_import), "operator set", where)
        _distinct(function.input, "input", where)
        _named(function.input, "input", where)
        _named(function.output, "output", where)
        _distinct([*function.attribute, *(a.name for a in function.attribute_proto)], "attribute", where)
        for attribute in function.attribute_proto:
            if attribute.HasField("g") or attribute.graphs or attribute.ref_attr_name:
                raise _unsupported("function-default", where, "a default that is a graph or a reference", "")
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
            _defined(node.input, scopes, f"{here}: input")
            _distinct((attribute.name for attribute in node.attribute), "attribute", here)
            for attribute in node.attribute:
                self.attribute(attribute, f"{here}: attribute {attribute.name!r}", scopes, depth)
        return scopes

    def attribute(self, attribute: onnx.AttributeProto, where: str, scopes: Scopes, depth: int) -> None:
        """Check one attribute and all it holds."""
        if attribute.ref_attr_name and attribute.type in _GRAPHS:
            raise _unsupported("graph-reference", where, "a graph given by the caller", "")
        for tensor in _one_or_many(attribute, "t", "tensors"):
            self.tensor(tensor, where)
        for sparse in _one_or_many(attribute, "sparse_tensor", "sparse_tensors"):
            self.sparse(sparse, where)
            raise _unsupported("sparse-attribute", where, "sparse tensors", "Store it dense.")
        for graph in _one_or_many(attribute, "g", "graphs"):
            self.graph(graph, where, scopes, depth + 1)
        for type_proto in _one_or_many(attribute, "tp", "type_protos"):
            _check_type(type_proto, where)
            _check_element_type(type_proto, where)

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
        if tensor.HasField("segment"):
            raise _unsupported("segment", where, "only a part of its data", "")
        if external and tensor.data_type == onnx.TensorProto.STRING:
            raise error(f"{where}: strings cannot be external data", slug="external-strings")
        if external:
            self.folder.read(Reference.of(tensor, nbytes, where))


def _one_or_many(attribute: onnx.AttributeProto, one: str, many: str) -> list[Any]:
    """What an attribute holds in the field for one or in the field for many."""
    return [*([getattr(attribute, one)] if attribute.HasField(one) else []), *getattr(attribute, many)]


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


def _function_id(function: onnx.FunctionProto) -> FunctionId:
    return _domain(function.domain), function.name, function.overload


def _callee(node: onnx.NodeProto) -> FunctionId:
    return _domain(node.domain), node.op_type, node.overload


def _domain(name: str) -> str:
    """The default domain has two spellings."""
    return "" if name == "ai.onnx" else name


def _check_type(message: onnx.TypeProto, where: str) -> None:
    """Refuse types that a loaded model cannot express."""
    for inner in _nested_types(message):
        kind = inner.WhichOneof("value")
        if kind in ("map_type", "opaque_type"):
            raise _unsupported(f"{kind.split('_')[0]}-type", where, f"{kind.replace('_', ' ')}s", "")


def _check_element_type(message: onnx.TypeProto, where: str) -> None:
    """Refuse a tensor type that lacks its element type, with which its shape would be lost."""
    if message.HasField("tensor_type") and not message.tensor_type.HasField("elem_type"):
        raise InvalidModel(f"{where} has no element type", slug="no-element-type")


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


def _named(names: Iterable[str], what: str, where: str) -> None:
    """Refuse an empty name where ONNX has no meaning for one."""
    if not all(names):
        raise InvalidModel(f"{where}: an {what} has no name", slug=f"unnamed-{what}")


def _defined(names: Iterable[str], scopes: Scopes, where: str) -> None:
    """Refuse a name that nothing produces."""
    for name in names:
        if name and not any(name in scope for scope in reversed(scopes)):
            raise InvalidModel(f"{where} {name!r} is produced by nothing", slug="undefined-value")


def _unsupported(slug: str, where: str, what: str, hint: str) -> UnsupportedModel:
    return UnsupportedModel(f"{where} has {what}, which onnxq cannot keep", hint=hint, slug=slug)

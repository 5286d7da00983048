"""onnx-graphsurgeon graphs as models, and somebody's graphsurgeon function as a pass.

Graphsurgeon's import and export drop metadata, doc strings of nodes and values, denotations, quantization
annotations, the model's domain and version, attributes of some types, types inside functions, and the fact
that an initializer is an input too. All of it is put back where the object it belongs to is still there.

Overridable initializers are shown to graphsurgeon as plain inputs, so that no function folds away what
callers set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxq.contract import Contract, ModelPass
from onnxq.errors import BackendError, UnsupportedModel, UsageProblem
from onnxq.interop.restore import restore

if TYPE_CHECKING:
    import onnx

Graph = Any
"""An `onnx_graphsurgeon.Graph`; the package has no types."""

A = ir.AttributeType
_SKIPPED = (A.SPARSE_TENSOR, A.SPARSE_TENSORS, A.TENSORS, A.TYPE_PROTO, A.TYPE_PROTOS)
_LISTS = (A.INTS, A.FLOATS, A.STRINGS)


@dataclass(frozen=True)
class GraphSurgeonPass(ModelPass):
    """A function over an `onnx_graphsurgeon.Graph`, run as a pass with a contract.

    Attributes:
        function: Changes the graph it is given and returns nothing, or returns another.
        name: What the pass is called in the journal.
        contract: What the author promises; the pipeline checks it.
    """

    function: Callable[[Graph], Graph | None]
    name: str  # type: ignore[misc]
    contract: Contract = Contract.REASSOCIATES  # type: ignore[misc]

    def transform(self, model: ir.Model) -> ir.Model:
        """The model that the function makes, with everything back that graphsurgeon dropped.

        Raises:
            UnsupportedModel: Graphsurgeon cannot hold the model, or what was lost cannot be put back.
            UsageProblem: The function returns something else than a graph.
        """
        graph = to_graphsurgeon(model)
        returned = self.function(graph)
        return from_graphsurgeon(graph if returned is None else returned, like=model)


def is_graphsurgeon(thing: object) -> bool:
    """Whether `thing` is a graphsurgeon graph; told without importing the package."""
    return any(
        cls.__name__ == "Graph" and cls.__module__.partition(".")[0] == "onnx_graphsurgeon"
        for cls in type(thing).__mro__
    )


def to_graphsurgeon(model: ir.Model) -> Graph:
    """The model as a graphsurgeon graph.

    Raises:
        UnsupportedModel: It has what graphsurgeon cannot hold and nobody could put back.
        BackendError: The package is not installed.
    """
    package = _package()
    _refuse_unholdable(model)
    proto = ir.to_proto(model)
    overridable = {value.name for value in model.graph.inputs if value.is_initializer()}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in overridable]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        _strip(nodes)
    return package.import_onnx(proto)


def from_graphsurgeon(graph: Graph, like: ir.Model | None = None) -> ir.Model:
    """A graphsurgeon graph as a model.

    Args:
        graph: An `onnx_graphsurgeon.Graph`.
        like: The model that the graph was made from, for what graphsurgeon does not keep.

    Raises:
        UnsupportedModel: An overridable input of `like` is gone, or the graph has sparse constants.
        UsageProblem: `graph` is no graph.
        OnnxqError: The graph is no valid model; see `onnxq.files.from_proto`.
    """
    from onnxq.files import from_proto

    if not is_graphsurgeon(graph):
        raise UsageProblem(
            f"a graphsurgeon function returned {type(graph).__name__}, not a graph",
            hint="Return the graph, or nothing after changing the one that was given.",
            slug="graphsurgeon-function",
        )
    proto = _package().export_onnx(graph, do_type_check=False)
    if like is not None:
        _check_inputs(proto, like)
        _fill_types(proto, like)
    model = from_proto(proto)
    if like is not None:
        _restore_defaults(like, model)
        restore(like, model, _is_dropped)
        _restore_version(like, model)
    return model


def _package() -> Any:
    try:
        import onnx_graphsurgeon
    except ImportError:
        raise BackendError(
            "onnx-graphsurgeon is not installed",
            hint="pip install 'onnxq[graphsurgeon]'",
            slug="no-graphsurgeon",
        ) from None
    return onnx_graphsurgeon


def _refuse_unholdable(model: ir.Model) -> None:
    if any(identifier[2] for identifier in model.functions):
        raise _unholdable("overloaded functions")
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            if node.overload:
                raise _unholdable("calls of overloaded functions")
            if any(attribute.type == A.GRAPHS for attribute in node.attributes.values()):
                raise _unholdable("attributes that are lists of graphs")
            for value in (*node.inputs, *node.outputs):
                if value is not None and not _is_holdable(value.type):
                    raise _unholdable(f"values like {value.name!r}, which is an optional or nested type")


def _is_holdable(kind: ir.TypeProtocol | None) -> bool:
    if isinstance(kind, ir.SequenceType):
        return isinstance(kind.elem_type, ir.TensorType)
    return kind is None or isinstance(kind, ir.TensorType)


def _unholdable(what: str) -> UnsupportedModel:
    return UnsupportedModel(f"onnx-graphsurgeon cannot hold {what}", slug="graphsurgeon")


def _is_dropped(attribute: ir.Attr) -> bool:
    """Whether graphsurgeon loses an attribute: of a type that it skips, or an empty list."""
    if attribute.is_ref():
        return False
    return attribute.type in _SKIPPED or (attribute.type in _LISTS and not attribute.value)


def _strip(nodes: Any) -> None:
    """Take off attributes that graphsurgeon would stumble over, in subgraphs too."""
    for node in nodes:
        for index in reversed(range(len(node.attribute))):
            attribute = node.attribute[index]
            kind = A(attribute.type)
            empty = not (attribute.ints or attribute.floats or attribute.strings or attribute.ref_attr_name)
            if kind in _SKIPPED or (kind in _LISTS and empty):
                del node.attribute[index]
            elif kind == A.GRAPH and not attribute.ref_attr_name:
                _strip(attribute.g.node)


def _fill_types(proto: onnx.ModelProto, like: ir.Model) -> None:
    """Give inputs and outputs that graphsurgeon left without a type the one they had."""
    known = {value.name: value for value in (*like.graph.inputs, *like.graph.outputs)}
    for info in (*proto.graph.input, *proto.graph.output):
        value = known.get(info.name)
        if value is not None and not info.type.WhichOneof("value") and value.type is not None:
            info.CopyFrom(ir.to_proto(value))


def _restore_version(like: ir.Model, model: ir.Model) -> None:
    """The IR version stays unless the function raised the opset."""
    from onnx import helper

    if model.opset_imports.get("") == like.opset_imports.get(""):
        model.ir_version = like.ir_version
        return
    opset = helper.make_opsetid("", model.opset_imports[""])
    model.ir_version = max(like.ir_version, helper.find_min_ir_version_for([opset]))


def _check_inputs(proto: onnx.ModelProto, like: ir.Model) -> None:
    """Refuse a graph that lost an input which has a default value."""
    inputs = {info.name for info in proto.graph.input}
    for old in _overridable(like):
        if old.name not in inputs:
            raise UnsupportedModel(
                f"the function took away the input {old.name!r}, which has a default value",
                hint="Leave it among graph.inputs.",
                slug="graphsurgeon-input",
            )


def _restore_defaults(like: ir.Model, model: ir.Model) -> None:
    """Give overridable inputs their default values back."""
    defaults = {value.name: value.const_value for value in _overridable(like)}
    for value in model.graph.inputs:
        if value.name in defaults and not value.is_initializer():
            value.const_value = defaults[value.name]
            model.graph.register_initializer(value)


def _overridable(model: ir.Model) -> Iterator[ir.Value]:
    return (value for value in model.graph.inputs if value.is_initializer())

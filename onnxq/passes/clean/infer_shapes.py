"""A model that leaves element types and shapes unsaid => the same model with what inference finds out.

Nothing is computed differently: only the descriptions of values inside the graph and its subgraphs are filled
in, and unknown or symbolic dimensions are made numbers where a number follows. Inputs and outputs of the
model stay as they are said. A model that onnx's inference cannot follow, or contradicts, stays as it is.

The inference is `onnx.shape_inference`. onnx-ir's pass around it is not used: it takes sequences for tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Contract, Examples, ModelPass
from onnxq.passes.clean.evidence import evidence, graph

_WORTH_READING = 1024
"""Bytes of an initializer up to which it may be a shape, axes, or indices that inference follows."""


@dataclass(frozen=True)
class InferShapes(ModelPass):
    """Say the type and shape of every value that has none."""

    name: ClassVar[str] = "infer-shapes"
    contract: ClassVar[Contract] = Contract.BITWISE

    def transform(self, model: ir.Model) -> ir.Model:
        """`model` itself, described better."""
        inferred = _inferred(model.clone())
        if inferred is None:
            return model
        for value, better in zip(_values(model), _values(inferred), strict=True):
            if not (value.is_graph_output() and value.graph is model.graph):
                _describe(value, better)
        return model

    @classmethod
    def examples(cls) -> Examples:
        """Values without types, dimensions that follow; models that say all or contradict themselves."""
        return evidence(_FIRES, _HOLDS)


def _inferred(copy: ir.Model) -> ir.Model | None:
    """What inference makes of `copy`, whose weights become inputs; None if it fails."""
    from onnx import shape_inference

    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _WORTH_READING:
            continue
        value.type, value.shape, value.const_value = (
            ir.TensorType(tensor.dtype),
            ir.Shape(tensor.shape.numpy()),
            None,
        )
        del copy.graph.initializers[name]
        if not value.is_graph_input():
            copy.graph.inputs.append(value)
    try:
        proto = shape_inference.infer_shapes(ir.to_proto(copy), True, True, True)
    except (shape_inference.InferenceError, ValueError):
        return None
    return ir.from_proto(proto)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Every node output and every input of a subgraph, in an order that a copy shares."""
    for part in model.graphs():
        if part is not model.graph:
            yield from part.inputs
        for node in part:
            yield from node.outputs


def _describe(value: ir.Value, better: ir.Value) -> None:
    if value.type is None and better.type is not None:
        value.type = better.type
    if better.shape is None:
        return
    if value.shape is None:
        value.shape = better.shape.copy()
    elif len(value.shape) == len(better.shape):
        value.shape = ir.Shape(
            new if isinstance(new, int) or _says_nothing(old) else old
            for old, new in zip(value.shape, better.shape, strict=True)
        )


def _says_nothing(size: int | ir.SymbolicDim) -> bool:
    return isinstance(size, ir.SymbolicDim) and size.value is None


_FIRES = (
    graph(
        "s = SequenceEmpty<dtype = 1>()  t = SequenceInsert(s, x)  y = SequenceAt(t, i)",
        constants="int64 i = {0}",
    ),
    graph("a = own.f(x)  y = Tanh(a)", function="f (a) => (b) { c = Neg(a)  b = Relu(c) }"),
    graph("a = Relu(x)  y = Tanh(a)"),
    graph(
        "a = MatMul(x, w)  y = Relu(a)", outputs="float[N,2] y", constants="float[4,2] w = {1,2,3,4,5,6,7,8}"
    ),
    graph("a = Relu(x)  y = Tanh(a)", "float[2,4] x", "float[2,4] y", constants="float[N,M] a"),
    graph(
        """y = If(c) <then_branch = t () => (float[N,4] p) { a = Neg(x)  p = Relu(a) },
                      else_branch = e () => (float[N,4] q) { q = Tanh(x) }>""",
        "float[N,4] x, bool[1] c",
    ),
)
_HOLDS = (
    (graph("a = Relu(x)  y = Tanh(a)", "float[2,4] x", "float[2,4] y", constants="float[2,4] a"), ""),
    (graph("a = Relu(x)  y = Tanh(a)", constants="float[N,4] a"), ""),
    (graph("y = Relu(x)", "float[N,4] x", "float[N,M] y"), ""),
    (graph("a = MatMul(x, x)  y = Relu(a)", "float[2,4] x", "float[A,B] y", constants="float[N,4] a"), ""),
)

"""f(constants) => the constant they make; Shape(x) and what is picked from it => the sizes that are known.

Fires where every input of a node is a constant that no caller can override and `evaluate` has a rule for it,
and on Shape, or a Gather or Slice of a Shape, where all sizes in question are known although others may not
be. A result may be larger than the constants that go with its node by at most `growth` bytes, which also
keeps a model from unpacking itself in memory.

Never folded: random operators, Quantize- and DequantizeLinear (the weights would swell to floats), and
whatever gives a graph its output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import constant_of, constant_shape, input_of, is_op, producer
from onnxq.passes.clean.evaluate import bytes_of, can_evaluate, evaluate
from onnxq.passes.clean.evidence import evidence, graph
from onnxq.passes.clean.forward import integer_of

GROWS = "the folded constant would be"


@dataclass(frozen=True)
class Folded:
    """The value that the one output of `node` always has."""

    node: ir.Node
    array: np.ndarray


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute now what does not depend on the inputs.

    Attributes:
        growth: Bytes by which folding one node may make the model larger.
    """

    name: ClassVar[str] = "fold-constants"
    contract: ClassVar[Contract] = Contract.BITWISE

    growth: int = 4096

    def match(self, node: ir.Node, context: Context) -> Folded | Reject | None:
        """A node whose result is known."""
        if node.domain != "" or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
            return None
        if is_op(node, "Shape", "Size"):
            array = _sizes(node)
        elif can_evaluate(node):
            inputs = _constants(node)
            if inputs is None:
                return None
            size = bytes_of(node, inputs) - _freed(node)
            if size > self.growth:
                return Reject(f"{GROWS} {size} bytes larger than what it replaces", label_of(node))
            array = evaluate(node, inputs)
        else:
            return None
        return None if array is None or not _fits(array, node.outputs[0]) else Folded(node, array)

    def rewrite(self, found: Folded, edit: Edit) -> None:
        """Put the constant in the place of the node."""
        output = found.node.outputs[0]
        value = edit.constant(_known(found.array), str(output.name), near=found.node)
        edit.replace(output, value)
        edit.remove_unused(found.node)

    @classmethod
    def examples(cls) -> Examples:
        """Arithmetic on sizes, parts of shapes; overridable, random, quantized and exploding constants."""
        return evidence(_FIRES, _HOLDS)


def _constants(node: ir.Node) -> Sequence[np.ndarray | None] | None:
    """The inputs of `node`, if all are constants or the data are a shape; None for each that is left out."""
    shape = _shape_entries(node)
    rest = node.inputs if shape is None else node.inputs[1:]
    if any(value is not None and constant_shape(value) is None for value in rest) or not node.inputs:
        return None
    arrays = [None if value is None else constant_of(value) for value in rest]
    if any(value is not None and array is None for value, array in zip(rest, arrays, strict=True)):
        return None
    return arrays if shape is None else [shape, *arrays]


def _shape_entries(node: ir.Node) -> np.ndarray | None:
    """For a Gather or Slice of a Shape: the sizes it gives, as objects, None for each unknown one."""
    if not is_op(node, "Gather", "Slice"):
        return None
    measured = producer(input_of(node, 0), "Shape")
    return None if measured is None else _range_of_shape(measured)


def _range_of_shape(node: ir.Node) -> np.ndarray | None:
    """What a Shape node gives, as objects, None for each size that is not known."""
    value = node.inputs[0]
    start, end = integer_of(node, "start", 0), integer_of(node, "end", 2**31)
    if value is None or value.shape is None or start is None or end is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    return np.array(sizes, dtype=object)[start:end]


def _sizes(node: ir.Node) -> np.ndarray | None:
    if node.op_type == "Shape":
        return _range_of_shape(node)
    value = node.inputs[0]
    sizes = [] if value is None or value.shape is None else list(value.shape)
    known = [size for size in sizes if isinstance(size, int)]
    if value is None or value.shape is None or len(known) != len(sizes):
        return None
    return np.array(math.prod(known), np.int64)


def _known(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int64) if array.dtype.kind == "O" else array


def _fits(array: np.ndarray, output: ir.Value) -> bool:
    """Whether all of `array` is known and it is what the model says of `output`."""
    if array.dtype.kind == "O" and any(entry is None for entry in array.reshape(-1)):
        return False
    return output.dtype is None or output.dtype.numpy() == _known(array).dtype


def _freed(node: ir.Node) -> int:
    """Bytes of the constants that only `node` reads."""
    freed = 0
    for value in set(node.inputs):
        if (
            value is not None
            and all(use.node is node for use in value.uses())
            and not value.is_graph_output()
        ):
            array = constant_of(value)
            freed += 0 if array is None else array.nbytes
    return freed


_FIRES = (
    graph("a = Add(v, w)  y = Mul(x, a)", constants="float[4] v = {1, 2, 3, 4}, float[1] w = {0.1}"),
    graph(
        "s = Shape(x)  t = Gather(s, i)  y = Reshape(x, t)",
        "float[1,1,4] x",
        "float[M] y",
        constants="int64[1] i = {2}",
    ),
    graph(
        """s = Shape(x)  h = Gather(s, one)  d = Unsqueeze(h, zero)  t = Concat<axis = 0>(n, d)
           y = Reshape(x, t)""",
        constants="int64 one = {1}, int64[1] zero = {0}, int64[1] n = {-1}",
    ),
    graph(
        "s = Shape<start = 1>(x)  t = Concat<axis = 0>(n, s)  y = Reshape(x, t)",
        constants="int64[1] n = {-1}",
    ),
    graph(
        "d = Div(q, r)  f = Cast<to = 1>(d)  a = Sqrt(f)  y = Mul(x, a)",
        constants="int64 q = {-7}, int64 r = {-2}",
    ),
    graph(
        "y = own.f(x)",
        function="f (a) => (b) { c = Constant<value_float = 2.0>()  d = Neg(c)  b = Mul(a, d) }",
    ),
)
_HOLDS = (
    (graph("a = Neg(w)  y = Mul(x, a)", "float[N,4] x, float[4] w = {1, 2, 3, 4}"), ""),
    (
        graph(
            "a = Expand(w, s)  y = Add(x, a)",
            "float[1] x",
            "float[A,B] y",
            constants="float[1] w = {1}, int64[2] s = {1000000, 1000000}",
        ),
        GROWS,
    ),
    (
        graph(
            "a = ConstantOfShape(s)  y = Add(x, a)",
            "float[1] x",
            "float[A,B] y",
            constants="int64[2] s = {131072, 131072}",
        ),
        GROWS,
    ),
    (graph("a = RandomNormal<shape = [4]>()  y = Add(x, a)"), ""),
    (
        graph(
            "a = DequantizeLinear(w, s)  y = Mul(x, a)",
            constants="int8[4] w = {1, 2, 3, 4}, float s = {0.5}",
        ),
        "",
    ),
    (
        graph(
            "s = Shape(x)  t = Gather(s, i)  y = Expand(t, t)",
            outputs="int64[M] y",
            constants="int64[1] i = {0}",
        ),
        "",
    ),
    (
        graph(
            "a = Div(v, w)  b = Add(a, x)  y = Neg(b)",
            "int64 x",
            "int64 y",
            constants="int64 v = {1}, int64 w = {0}",
        ),
        "",
    ),
)

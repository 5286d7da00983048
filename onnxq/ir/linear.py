"""Linear layers: ``x @ weight + bias``, as MatMul, MatMul and Add, or Gemm, wherever the weight hides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit, Reject
from onnxq.ir.append import append
from onnxq.ir.precision import float_view, is_float, round_once
from onnxq.ir.walk import (
    constant_dtype,
    constant_of,
    constant_shape,
    input_of,
    is_op,
    is_overridable,
    producer,
    rank_of,
    root_of,
)

_FUSED = {
    "FusedMatMul": "a FusedMatMul has its own transposes and scale",
    "FusedGemm": "a FusedGemm has an activation inside",
    "GemmFastGelu": "a GemmFastGelu has an activation inside",
    "GemmFloat8": "the product is quantized already",
    "MatMulBnb4": "the weight is quantized already",
    "MatMulNBits": "the weight is quantized already",
    "MatMulIntegerToFloat": "the product is quantized already",
    "DynamicQuantizeMatMul": "the product is quantized already",
}


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer with constant weights, in ``x @ weight + bias`` form whatever its spelling.

    Attributes:
        node: The MatMul or Gemm.
        activation: What is multiplied, shape [..., K].
        output: The result with the bias added, shape [..., N].
        channels: K, the input channels.
        columns: N, the output channels.
        dtype: Element type that the layer computes in.
        bias_node: The Add behind a MatMul or a Gemm without C; None if there is none.
        bias_index: Which input of `bias_node` (of the Gemm, if that is None) holds the bias; None without a
            bias.
    """

    node: ir.Node
    activation: ir.Value
    output: ir.Value
    channels: int
    columns: int
    dtype: np.dtype
    bias_node: ir.Node | None = None
    bias_index: int | None = None

    @cached_property
    def weight(self) -> np.ndarray:
        """The weight [K, N], float64 for a double model, else float32; alpha and transB are applied."""
        array = constant_of(self.node.inputs[1])
        if array is None:
            raise LookupError(f"the weight of {self.node.name!r} was changed since it was found")
        weight = float_view(array)
        if self.node.op_type == "Gemm":
            weight = weight.T if _number(self.node, "transB", 0) else weight
            alpha = _number(self.node, "alpha", 1.0)
            weight = weight if alpha == 1.0 else weight * weight.dtype.type(alpha)
        return weight

    @cached_property
    def bias(self) -> np.ndarray | None:
        """The bias [N], or None; beta of a Gemm is applied."""
        if self.bias_index is None:
            return None
        holder = self.bias_node or self.node
        array = constant_of(holder.inputs[self.bias_index])
        if array is None:
            raise LookupError(f"the bias of {self.node.name!r} was changed since it was found")
        bias = np.broadcast_to(float_view(array).reshape(-1), (self.columns,))
        beta = _number(self.node, "beta", 1.0) if self.bias_node is None else 1.0
        return bias if beta == 1.0 else bias * bias.dtype.type(beta)

    @property
    def root(self) -> ir.Value | None:
        """The initializer or Constant output that holds the weight: equal for tied linears."""
        return root_of(self.node.inputs[1])


def find_linear(node: ir.Node) -> Linear | Reject | None:
    """The linear layer whose product is `node`.

    Returns:
        A `Linear`; a `Reject` for a product with a constant that is no plain linear layer; None for
        anything else, including the product of two computed values.
    """
    if node.domain == "com.microsoft" and node.op_type in _FUSED:
        return (
            Reject(_FUSED[node.op_type], node.name or "") if root_of(input_of(node, 1)) is not None else None
        )
    if not is_op(node, "MatMul", "Gemm") or input_of(node, 0) is None or input_of(node, 1) is None:
        return None
    reason = _obstacle(node)
    if reason is not None:
        return Reject(reason, node.name or "") if reason else None
    return _found(node)


def linear_giving(value: ir.Value) -> Linear | None:
    """The linear layer whose output, bias included, is `value`."""
    node = producer(value, "MatMul", "Gemm", "Add")
    candidates = [node] if node is not None else []
    if is_op(node, "Add") and node is not None:
        candidates = [made for part in node.inputs if (made := producer(part, "MatMul", "Gemm")) is not None]
    for candidate in candidates:
        found = find_linear(candidate)
        if isinstance(found, Linear) and found.output is value:
            return found
    return None


def rewrite_linear(linear: Linear, edit: Edit, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Give a linear layer new numbers, whatever its spelling.

    Constants are new ones, rounded once to the layer's element type; whoever else reads the old ones keeps
    them. A bias appears where there was none (an Add behind a MatMul, C of a Gemm) and vanishes if `bias`
    is None. Pass ``linear.weight`` itself to leave the weight alone. What was found before is out of date
    afterwards.

    Args:
        linear: What `find_linear` found.
        edit: The edit that records the change.
        weight: [K, N], any float type.
        bias: [N] or None, any float type.

    Raises:
        ValueError: Wrong shape, or a number that overflows the layer's element type.
    """
    if weight.shape != (linear.channels, linear.columns):
        raise ValueError(
            f"the weight of {linear.node.name!r} is {linear.channels} x {linear.columns}, not {weight.shape}"
        )
    if bias is not None and bias.shape != (linear.columns,):
        raise ValueError(f"the bias of {linear.node.name!r} has {linear.columns} elements, not {bias.shape}")
    new_bias = None if bias is None else round_once(bias, linear.dtype)
    if weight is not linear.weight:
        _write_weight(linear, edit, round_once(weight, linear.dtype))
    if new_bias is None:
        _drop_bias(linear, edit)
    else:
        _write_bias(linear, edit, new_bias)


def _obstacle(node: ir.Node) -> str | None:
    """Why the product `node` is no linear layer: a reason, "" for "not the shape", None if it is one."""
    left, right = node.inputs[0], node.inputs[1]
    if root_of(right) is None:
        if producer(right, "DequantizeLinear") is not None:
            return "the weight is quantized already"
        return "the weight is on the left of the product" if root_of(left) is not None else ""
    if root_of(left) is not None and not is_overridable(left):
        return ""  # two constants: for folding
    if is_overridable(right):
        return "the weight is a graph input too, so a caller may override it"
    shape = constant_shape(right)
    if shape is None:
        return "the weight cannot be read"
    if len(shape) != 2:
        return f"the weight has {len(shape)} axes, not 2"
    return _gemm_obstacle(node, shape) if node.op_type == "Gemm" else _type_obstacle(node)


def _type_obstacle(node: ir.Node) -> str | None:
    return None if is_float(constant_dtype(node.inputs[1])) else "the product is not one of floats"


def _gemm_obstacle(node: ir.Node, shape: tuple[int, ...]) -> str | None:
    if any(found.is_ref() for found in node.attributes.values()):
        return "an attribute is an argument of the function around it"
    if _number(node, "transA", 0):
        return "the Gemm transposes its activation (transA)"
    given = input_of(node, 2)
    if given is not None:
        columns = shape[0] if _number(node, "transB", 0) else shape[1]
        if is_overridable(given):
            return "the bias is a graph input too, so a caller may override it"
        if constant_of(given) is None:
            return "the bias of the Gemm is computed"
        if not _is_vector(given, columns):
            return "the bias of the Gemm is not one number per column"
    return _type_obstacle(node)


def _found(node: ir.Node) -> Linear | None:
    activation, weight = node.inputs[0], node.inputs[1]
    shape = constant_shape(weight)
    if activation is None or weight is None or shape is None:
        return None
    transposed = node.op_type == "Gemm" and _number(node, "transB", 0)
    channels, columns = (shape[1], shape[0]) if transposed else (shape[0], shape[1])
    output, bias_node, bias_index = node.outputs[0], None, None
    if input_of(node, 2) is not None:
        bias_index = 2
    elif (added := _bias_behind(output, columns)) is not None:
        bias_node, bias_index = added
        output = bias_node.outputs[0]
    return Linear(node, activation, output, channels, columns, constant_dtype(weight), bias_node, bias_index)


def _bias_behind(product: ir.Value, columns: int) -> tuple[ir.Node, int] | None:
    """The Add of a constant vector that alone reads `product`, and which of its inputs is the vector."""
    uses = product.uses()
    if len(uses) != 1 or product.is_graph_output():
        return None
    node, index = next(iter(uses))
    if not is_op(node, "Add") or node.graph is not _graph_of(product):
        return None
    other = input_of(node, 1 - index)
    if not _is_vector(other, columns) or _rank_raising(other, product):
        return None
    return node, 1 - index


def _graph_of(value: ir.Value) -> ir.Graph | ir.Function | None:
    node = value.producer()
    return node.graph if node is not None else None


def _is_vector(value: ir.Value | None, columns: int) -> bool:
    """Whether `value` is a constant that broadcasts to one number per column, the same in each row."""
    shape = constant_shape(value)
    if shape is None or any(size != 1 for size in shape[:-1]):
        return False
    return not shape or shape[-1] in (1, columns)


def _rank_raising(vector: ir.Value | None, product: ir.Value) -> bool:
    """Whether adding `vector` may give the result more axes than `product` has."""
    shape, node = constant_shape(vector), product.producer()
    known = [product, *(node.inputs[:1] if node is not None else [])]
    ranks = [rank for value in known if value is not None and (rank := rank_of(value)) is not None]
    return shape is not None and len(shape) > 1 and (not ranks or len(shape) > min(ranks))


def _write_weight(linear: Linear, edit: Edit, weight: np.ndarray) -> None:
    node = linear.node
    if node.op_type == "Gemm":
        weight = weight.T if _number(node, "transB", 0) else weight
        if _number(node, "alpha", 1.0) != 1.0:
            edit.set_attribute(node, "alpha", 1.0)
    put_constant(edit, node, 1, weight)


def _write_bias(linear: Linear, edit: Edit, bias: np.ndarray) -> None:
    node = linear.node
    if linear.bias_node is not None and linear.bias_index is not None:
        put_constant(edit, linear.bias_node, linear.bias_index, bias)
    elif node.op_type == "Gemm":
        if _number(node, "beta", 1.0) != 1.0:
            edit.set_attribute(node, "beta", 1.0)
        put_constant(edit, node, 2, bias)
    else:
        append(edit, linear.output, "Add", bias)


def _drop_bias(linear: Linear, edit: Edit) -> None:
    if linear.bias_node is not None:
        name, public = linear.output.name, linear.output.is_graph_output()
        product = linear.node.outputs[0]
        edit.replace(linear.output, product)
        edit.remove(linear.bias_node)
        if not public:
            product.name = name
    elif linear.bias_index is not None:
        edit.rewire(linear.node, linear.bias_index, None)


def put_constant(edit: Edit, node: ir.Node, index: int, array: np.ndarray) -> None:
    """A new constant at input `index`; the chain behind the old one goes if nobody else reads it."""
    old = input_of(node, index)
    edit.replace_constant(node, index, np.ascontiguousarray(array))
    chain = old.producer() if old is not None else None
    if chain is not None:
        edit.remove_unused(chain)


def _number(node: ir.Node, name: str, default: float) -> float:
    found = node.attributes.get(name)
    return default if found is None else float(found.value)

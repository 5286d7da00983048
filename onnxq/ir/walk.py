"""Walking a model, and reading constants wherever an exporter put them."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import onnx_ir as ir

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
"""Element types of ordinary arithmetic; 8-bit and smaller floats are storage."""

_CHEAP = frozenset({"Identity", "Cast", "Transpose", "Reshape", "Unsqueeze", "Squeeze"})
_CHAIN_LIMIT = 16


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of `model` in order: a node before its subgraphs, functions after the main graph."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether `node` is one of these operators of the default domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes `value`, if it is one of these operators (of any kind, if none is named)."""
    node = value.producer() if value is not None else None
    return node if node is not None and (not op_types or is_op(node, *op_types)) else None


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def rank_of(value: ir.Value) -> int | None:
    """Number of axes, if known."""
    return len(value.shape) if value.shape is not None else None


def last_dim(value: ir.Value) -> int | None:
    """Length of the last axis, if known."""
    if value.shape is None or len(value.shape) == 0:
        return None
    size = value.shape[-1]
    return size if isinstance(size, int) else None


def root_of(value: ir.Value | None) -> ir.Value | None:
    """The initializer or Constant output that `value` is a cast or re-shaped copy of; None if computed."""
    return _chain_of(value)[0]


def is_overridable(value: ir.Value | None) -> bool:
    """Whether `value` comes from an initializer that a caller may override, being a graph input as well."""
    root = root_of(value)
    return root is not None and root.is_graph_input()


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The array that `value` always holds, or None.

    Reads initializers, Constant nodes, and Identity, Cast, Transpose, Reshape, Unsqueeze and Squeeze chains
    over them. An initializer that is also a graph input may be overridden by the caller and is no constant.
    The array may be a read-only view of the model's own memory.
    """
    root, chain = _chain_of(value)
    if root is None or root.is_graph_input():
        return None
    tensor = _tensor_of(root)
    if tensor is None:
        return None
    array: np.ndarray | None = tensor.numpy()
    for node in reversed(chain):
        array = _apply(node, array) if array is not None else None
    return array


def constant_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Shape of `constant_of(value)`, found without reading the data; None where that would be None."""
    root, chain = _chain_of(value)
    if root is None or root.is_graph_input():
        return None
    tensor = _tensor_of(root)
    if tensor is None:
        return None
    # One element, repeated by zero strides: takes no memory whatever its shape.
    ghost: np.ndarray | None = np.broadcast_to(np.zeros(()), tensor.shape.numpy())
    for node in reversed(chain):
        if ghost is not None and node.op_type != "Cast":
            ghost = _apply(node, ghost)
    return None if ghost is None else ghost.shape


def constant_dtype(value: ir.Value | None) -> np.dtype:
    """Element type of `constant_of(value)`, found without reading the data; ``object`` where that is None."""
    root, chain = _chain_of(value)
    for node in chain:
        if node.op_type == "Cast":
            target = cast_type(node)
            return np.dtype(object if target == ir.DataType.UNDEFINED else target.numpy())
    tensor = _tensor_of(root) if root is not None else None
    return np.dtype(object) if tensor is None else np.dtype(tensor.dtype.numpy())


def is_scalar_close(value: ir.Value | None, number: float) -> bool:
    """Whether `value` is a constant of one element, equal to `number` in the precision of its type."""
    scalar = scalar_of(value)
    if scalar is None:
        return False
    number_given, tolerance = scalar
    return bool(abs(number_given - number) <= tolerance * abs(number) + 1e-12)


def scalar_of(value: ir.Value | None) -> tuple[float, float] | None:
    """The number and its relative precision, if `value` is a constant of one element; else None.

    Exporters and authors write 1.4142 for a root of two, so even float32 gets the tolerance 1e-4.
    """
    shape = constant_shape(value)
    if shape is None or any(size != 1 for size in shape):
        return None
    array = constant_of(value)
    if array is None or array.dtype == object:
        return None
    tolerance = {np.dtype(np.float16): 1e-3, np.dtype(ml_dtypes.bfloat16): 4e-3}.get(array.dtype, 1e-4)
    return float(array.reshape(())), tolerance


def attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute; `default` if it is absent or refers to an argument of the enclosing function."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.as_int()


def cast_type(node: ir.Node) -> ir.DataType:
    """What a Cast casts to; UNDEFINED if that is no element type or an argument of the enclosing function."""
    number = attribute(node, "to", 0)
    return ir.DataType(number) if number in set(ir.DataType) else ir.DataType.UNDEFINED


def axes_of(node: ir.Node, index: int = 1) -> tuple[int, ...] | None:
    """The axes of a reduction, Squeeze or Unsqueeze: an attribute, or in newer opsets input `index`."""
    found = node.attributes.get("axes")
    if found is not None:
        return None if found.is_ref() else tuple(found.as_ints())
    array = _literal(input_of(node, index))
    return None if array is None else tuple(int(axis) for axis in array.reshape(-1))


def _chain_of(value: ir.Value | None) -> tuple[ir.Value | None, list[ir.Node]]:
    """The constant at the bottom and the nodes above it, uppermost first."""
    chain: list[ir.Node] = []
    while value is not None and len(chain) < _CHAIN_LIMIT:
        node = value.producer()
        if node is None:
            return (value if value.is_initializer() else None), chain
        if is_op(node, "Constant"):
            return value, chain
        if not (is_op(node, *_CHEAP) and node.inputs):
            return None, chain
        chain.append(node)
        value = node.inputs[0]
    return None, chain


def _literal(value: ir.Value | None) -> np.ndarray | None:
    """A constant that is written down, not reshaped from another: axes and targets may not nest chains."""
    root, chain = _chain_of(value)
    if (
        root is None
        or root.is_graph_input()
        or any(node.op_type not in ("Identity", "Cast") for node in chain)
    ):
        return None
    tensor = _tensor_of(root)
    return None if tensor is None else tensor.numpy()


def _tensor_of(root: ir.Value) -> ir.TensorProtocol | None:
    node = root.producer()
    if node is None:
        return root.const_value
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        found = node.attributes.get(name)
        if found is None or found.is_ref():
            continue
        if name == "value":
            return found.as_tensor()
        return ir.tensor(np.array(found.value, np.float32 if "float" in name else np.int64))
    return None


def _apply(node: ir.Node, array: np.ndarray) -> np.ndarray | None:
    """What one cheap node makes of a constant; None if it cannot be told."""
    if node.op_type == "Identity":
        return array
    if node.op_type == "Cast":
        return _cast(node, array)
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        if perm is not None and perm.is_ref():
            return None
        return array.transpose(tuple(perm.as_ints()) if perm is not None else None)
    if node.op_type == "Reshape":
        return _reshape(node, array)
    return _squeeze(node, array)


def _cast(node: ir.Node, array: np.ndarray) -> np.ndarray | None:
    dtype = cast_type(node)
    if dtype not in FLOATS and dtype not in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL):
        return None
    return array.astype(dtype.numpy())


def _reshape(node: ir.Node, array: np.ndarray) -> np.ndarray | None:
    target = _literal(input_of(node, 1))
    if target is None:
        return None
    sizes = [int(size) for size in target]
    if not attribute(node, "allowzero", 0):
        if any(size == 0 and axis >= array.ndim for axis, size in enumerate(sizes)):
            return None
        sizes = [array.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return array.reshape(sizes)


def _squeeze(node: ir.Node, array: np.ndarray) -> np.ndarray | None:
    axes = axes_of(node)
    if node.op_type == "Unsqueeze":
        return None if axes is None else np.expand_dims(array, axes)
    if axes is None and input_of(node, 1) is not None:
        return None
    return np.squeeze(array, axes)

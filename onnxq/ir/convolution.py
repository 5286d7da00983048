"""Convolutions and transposed convolutions with constant weights, and what stands next to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit, Reject
from onnxq.edit import label_of
from onnxq.ir.linear import put_constant
from onnxq.ir.precision import float_view, is_float, round_once
from onnxq.ir.walk import (
    attribute,
    constant_dtype,
    constant_of,
    constant_shape,
    input_of,
    is_op,
    is_overridable,
)

_LISTS = ("strides", "dilations", "pads", "output_padding", "kernel_shape", "output_shape")
POINTWISE = frozenset(
    {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Selu", "HardSigmoid", "HardSwish", "Softplus", "Clip"}
)
"""Functions of one element each; Clip only with constant ends."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """A Conv or ConvTranspose over any number of spatial axes, with a constant weight.

    Attributes:
        node: The node.
        activation: What is convolved, shape [batch, channels, spatial...].
        output: The result.
        channels: Input channels.
        columns: Output channels.
        kernel: Size along each spatial axis.
        strides: Along each spatial axis.
        dilations: Along each spatial axis.
        begins: Padding in front along each spatial axis; of a transposed convolution, what is cut off.
        ends: The same behind.
        output_padding: Added behind the result of a transposed convolution.
        groups: Groups of channels.
        transposed: Whether it is a ConvTranspose.
        dtype: Element type that it computes in.
    """

    node: ir.Node
    activation: ir.Value
    output: ir.Value
    channels: int
    columns: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool
    dtype: np.dtype

    @cached_property
    def weight(self) -> np.ndarray:
        """As the node has it, float64 for a double model, else float32.

        [columns, channels / groups, kernel...], transposed [channels, columns / groups, kernel...].
        """
        return _read(self.node, 1, "weight")

    @cached_property
    def bias(self) -> np.ndarray | None:
        """The bias [columns], or None."""
        return None if input_of(self.node, 2) is None else _read(self.node, 2, "bias")

    @property
    def is_pointwise(self) -> bool:
        """Whether each position goes through one linear layer: kernel 1, nothing padded or skipped."""
        plain = all(size == 1 for size in (*self.kernel, *self.strides, self.groups))
        return plain and not any((*self.begins, *self.ends, *self.output_padding))


def find_convolution(node: ir.Node) -> Convolution | Reject | None:
    """The convolution at `node`; a `Reject` for one that cannot be read; None for anything else."""
    if not is_op(node, "Conv", "ConvTranspose"):
        return None
    reason = _obstacle(node)
    if reason:
        return Reject(reason, label_of(node))
    shape, activation = constant_shape(node.inputs[1]), node.inputs[0]
    if shape is None or activation is None:
        return None
    axes, transposed = len(shape) - 2, is_op(node, "ConvTranspose")
    groups = attribute(node, "group", 1)
    pads = _integers(node, "pads", (0,) * (2 * axes))
    return Convolution(
        node=node,
        activation=activation,
        output=node.outputs[0],
        channels=shape[0] if transposed else shape[1] * groups,
        columns=shape[1] * groups if transposed else shape[0],
        kernel=tuple(shape[2:]),
        strides=_integers(node, "strides", (1,) * axes),
        dilations=_integers(node, "dilations", (1,) * axes),
        begins=pads[:axes],
        ends=pads[axes:],
        output_padding=_integers(node, "output_padding", (0,) * axes),
        groups=groups,
        transposed=transposed,
        dtype=constant_dtype(node.inputs[1]),
    )


def rewrite_convolution(
    convolution: Convolution, edit: Edit, weight: np.ndarray, bias: np.ndarray | None
) -> None:
    """Give a convolution new numbers, rounded once to its element type.

    Args:
        convolution: What `find_convolution` found; out of date afterwards.
        edit: The edit that records the change.
        weight: Of the shape it has, any float type.
        bias: [columns] or None, any float type.
    """
    node, dtype = convolution.node, convolution.dtype
    if weight.shape != convolution.weight.shape:
        raise ValueError(f"the weight of {node.name!r} is {convolution.weight.shape}, not {weight.shape}")
    put_constant(edit, node, 1, round_once(weight, dtype))
    if bias is None:
        if input_of(node, 2) is not None:
            edit.rewire(node, 2, None)
    elif input_of(node, 2) is None:
        edit.rewire(node, 2, edit.constant(round_once(bias, dtype), f"{label_of(node)}_bias", near=node))
    else:
        put_constant(edit, node, 2, round_once(bias, dtype))


def is_pointwise(node: ir.Node | None) -> bool:
    """Whether `node` computes each element of its output from that element of its input alone."""
    if node is None or not is_op(node, *POINTWISE):
        return False
    return all(value is None or constant_of(value) is not None for value in node.inputs[1:])


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, and reads it first; None where there are others, or an output is."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node, index = next(iter(uses))
    made = value.producer()
    return node if index == 0 and made is not None and node.graph is made.graph else None


def size_along(value: ir.Value | None, axis: int) -> int | None:
    """Length of an axis, None where it is not known to be a number."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def _obstacle(node: ir.Node) -> str:
    """Why a convolution cannot be read; "" if it can."""
    if any(input_of(node, index) is None for index in (0, 1)):
        return "an input is missing"
    for index, what in ((1, "weight"), (2, "bias")):
        value = input_of(node, index)
        if value is None or constant_shape(value) is not None:
            continue
        return f"a caller may override its {what}" if is_overridable(value) else f"its {what} is computed"
    shape = constant_shape(node.inputs[1]) or ()
    if len(shape) < 3 or not is_float(constant_dtype(node.inputs[1])):
        return "its weight is no float tensor with spatial axes"
    if any(found.is_ref() for found in node.attributes.values()):
        return "an attribute is an argument of the enclosing function"
    padding = node.attributes.get("auto_pad")
    if padding is not None and padding.as_string() not in ("NOTSET", "VALID"):
        return f"auto_pad {padding.as_string()} depends on the input's size"
    if "output_shape" in node.attributes:
        return "output_shape says how much is cut off"
    return _odd_shape(node, shape)


def _odd_shape(node: ir.Node, shape: tuple[int, ...]) -> str:
    axes = len(shape) - 2
    long = {name: axes * (2 if name == "pads" else 1) for name in _LISTS}
    for name in _LISTS:
        if name in node.attributes and len(node.attributes[name].as_ints()) != long[name]:
            return f"{name} does not fit the weight"
    if any(pad < 0 for pad in _integers(node, "pads", ())):
        return "its pads are negative"
    return (
        ""
        if _integers(node, "kernel_shape", tuple(shape[2:])) == tuple(shape[2:])
        else "kernel_shape is not the weight's"
    )


def _integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = node.attributes.get(name)
    return default if found is None else tuple(found.as_ints())


def _read(node: ir.Node, index: int, what: str) -> np.ndarray:
    array = constant_of(node.inputs[index])
    if array is None:
        raise LookupError(f"the {what} of {node.name!r} was changed since it was found")
    return float_view(array)

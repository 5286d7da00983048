"""Channels: how many a value has, where exporters left the shapes out, and which of them a weight reads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.ir.walk import attribute, constant_of, constant_shape, input_of, is_op, last_dim, producer

_CLIMB_LIMIT = 16
_ELEMENTWISE = (
    "Add",
    "Cast",
    "Div",
    "Dropout",
    "Erf",
    "Gelu",
    "Identity",
    "LayerNormalization",
    "Mul",
    "Pow",
    "RMSNormalization",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Sub",
    "Tanh",
)


def channels_of(value: ir.Value) -> int | None:
    """Length of the last axis, if known: from the shape, or else from the constants `value` is made with.

    Exporters leave most shapes out, while weights, biases and targets of reshapes still tell the channels. An
    operand whose last axis is longer than one decides the length that others are broadcast to.
    """
    known, pending = _length(value), [value]
    for _ in range(_CLIMB_LIMIT):
        if known is not None or not pending:
            return known
        node = pending.pop(0).producer()
        if node is not None and is_op(node, *_ELEMENTWISE):
            operands = [operand for operand in node.inputs if operand is not None]
            known = next((size for operand in operands if (size := _length(operand) or 0) > 1), None)
            pending += operands
    return None


def reshape_end(node: ir.Node) -> tuple[int | None, ...]:
    """The known target sizes of a Reshape, None for each that is not; () if not even their number is known.

    A target computed at run time as Concat(batch, length, constant ...) still tells its constant parts.
    """
    return _target_sizes(input_of(node, 1))


def live_channels(weights: Iterable[np.ndarray]) -> npt.NDArray[np.bool_]:
    """Channels that some weight multiplies by other than zero, whatever becomes of the rest.

    Args:
        weights: [C, N] each, one at least.

    Returns:
        bool [C].
    """
    left = iter(weights)
    live: npt.NDArray[np.bool_] = np.any(next(left), axis=1)
    for weight in left:
        if live.all():
            break
        live |= np.any(weight, axis=1)
    return live


def _length(value: ir.Value) -> int | None:
    """Length of the last axis, as the shape or the producer's own constants tell it."""
    known, node = last_dim(value), value.producer()
    if known is not None or node is None:
        return known
    if is_op(node, "Reshape"):
        sizes = reshape_end(node)
        return sizes[-1] or None if sizes else None
    if is_op(node, "MatMul", "Gemm"):
        weight = constant_shape(input_of(node, 1))
        if weight is None or len(weight) != 2:
            return None
        return weight[0] if attribute(node, "transB", 0) else weight[1]
    shape = constant_shape(value)
    return shape[-1] if shape else None


def _target_sizes(shape: ir.Value | None) -> tuple[int | None, ...]:
    array = constant_of(shape)
    if array is not None:
        return tuple(int(size) if size >= 0 else None for size in array.reshape(-1))
    concat = producer(shape, "Concat")
    if concat is None:
        return ()
    sizes: list[int | None] = []
    for part in concat.inputs:
        known = constant_of(part)
        # A part of unknown length counts as one size: sizes behind it still count from the end. Zero means
        # "as in the input", which only a whole target can resolve.
        sizes += [None] if known is None else [int(size) if size > 0 else None for size in known.reshape(-1)]
    return tuple(sizes)

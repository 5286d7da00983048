"""A model whose smaller constants are off by one rounding: what the last bits of its arithmetic are worth.

Token ids cannot be moved by a last bit. The scales of norms and the biases of linears can, and an error there
travels the way that the rounding of whatever passes through them does. Signs are random: where they go by
turns, the errors of a row of weights add up in one column or cancel, and say little of what rounding does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

LARGEST = 1 << 16
"""Elements of the largest constant that is moved; there are vectors enough between large weights."""
_SIZES = {"Resize", "Upsample"}
"""Operators whose constants are sizes, which runtimes refuse where they are off."""
_UNITS = {
    ir.DataType.DOUBLE: 2.0**-52,
    ir.DataType.FLOAT: 2.0**-23,
    ir.DataType.FLOAT16: 2.0**-10,
    ir.DataType.BFLOAT16: 2.0**-7,
}


def shaken(model: ir.Model, seed: int = 0) -> ir.Model | None:
    """A copy with float constants of its main graph moved up or down at random; None if there are none.

    Large weights are shared with `model`.

    Args:
        model: The original.
        seed: Of the signs.
    """
    try:
        copied = model.clone()
    except (RuntimeError, ValueError):  # its nodes are out of order
        return None
    random = np.random.default_rng(seed)
    moved = False
    for value in copied.graph.initializers.values():
        if not _is_size(value) and (tensor := _moved(value.const_value, random)) is not None:
            value.const_value, moved = tensor, True
    for node in copied.graph:
        held = node.attributes.get("value") if node.op_type == "Constant" else None
        if held is None or _is_size(node.outputs[0]):
            continue
        if (tensor := _moved(held.as_tensor(), random)) is not None:
            node.attributes["value"], moved = ir.AttrTensor("value", tensor), True
    return copied if moved else None


def _is_size(value: ir.Value) -> bool:
    return any(reader.op_type in _SIZES and index for reader, index in value.uses())


def _moved(tensor: ir.TensorProtocol | None, random: np.random.Generator) -> ir.TensorProtocol | None:
    """The tensor moved by one rounding; None if it is to stay."""
    if tensor is None or not 1 < tensor.size <= LARGEST or tensor.dtype not in _UNITS:
        return None  # a single number may be an exponent, and a power of 2 + 2**-22 is NaN for all below zero
    array = tensor.numpy()
    signs = random.choice((-1.0, 1.0), array.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        other = array.astype(np.float64) * (1 + signs * _UNITS[tensor.dtype])
        return ir.tensor(other.astype(array.dtype), name=tensor.name)

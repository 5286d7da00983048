"""A model whose smaller constants are off by one rounding: what the last bits of its arithmetic are worth.

Token ids cannot be moved by a last bit. The scales of norms and the biases of linears can, and an error there
travels the way that the rounding of whatever passes through them does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

LARGEST = 1 << 16
"""Elements of the largest constant that is moved; there are vectors enough between large weights."""
_UNITS = {
    ir.DataType.DOUBLE: 2.0**-52,
    ir.DataType.FLOAT: 2.0**-23,
    ir.DataType.FLOAT16: 2.0**-10,
    ir.DataType.BFLOAT16: 2.0**-7,
}


def shaken(model: ir.Model) -> ir.Model | None:
    """A copy with float constants of its main graph moved up and down by turns; None if there are none.

    Large weights are shared with `model`.
    """
    try:
        copied = model.clone()
    except (RuntimeError, ValueError):  # its nodes are out of order
        return None
    moved = False
    for value in copied.graph.initializers.values():
        if (tensor := _moved(value.const_value)) is not None:
            value.const_value, moved = tensor, True
    for node in copied.graph:
        held = node.attributes.get("value") if node.op_type == "Constant" else None
        if held is not None and (tensor := _moved(held.as_tensor())) is not None:
            node.attributes["value"], moved = ir.AttrTensor("value", tensor), True
    return copied if moved else None


def _moved(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """The tensor moved by one rounding; None if it is to stay."""
    if tensor is None or not 1 < tensor.size <= LARGEST or tensor.dtype not in _UNITS:
        return None  # a single number may be an exponent, and a power of 2 + 2**-22 is NaN for all below zero
    array = tensor.numpy()
    signs = np.where(np.arange(array.size).reshape(array.shape) % 2, -1.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        other = array.astype(np.float64) * (1 + signs * _UNITS[tensor.dtype])
        return ir.tensor(other.astype(array.dtype), name=tensor.name)

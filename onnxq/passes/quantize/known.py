"""What the graph alone says of an activation: bounds of its function."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.ir.walk import is_op

_BOUNDED = {
    "Softmax": (0.0, 1.0),
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Erf": (-1.0, 1.0),
}
_MOVING = (
    "Identity",
    "Dropout",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Gather",
)
"""Operators that hand on elements of their first input as they are."""


def bounds_of(value: ir.Value) -> tuple[float, float] | None:
    """The range of the function that computes `value`, whatever data it meets; None if it has none.

    A sample seldom holds what a bounded function reaches, and a fixed range costs little: Softmax gives
    near 1 for some token of almost any text.
    """
    node = value.producer()
    while node is not None and is_op(node, *_MOVING) and node.inputs and node.inputs[0] is not None:
        if value is not node.outputs[0]:
            return None
        value = node.inputs[0]
        node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    return _BOUNDED.get(node.op_type)

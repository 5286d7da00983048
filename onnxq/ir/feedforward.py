"""Feed-forward blocks: ``down(act(up(x)))`` and, gated, ``down(act(gate(x)) * up(x))``."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.ir.activation import Activation, find_activation
from onnxq.ir.flow import source_of
from onnxq.ir.linear import Linear, find_linear, linear_giving
from onnxq.ir.walk import producer


@dataclass(frozen=True, eq=False)
class FeedForward:
    """A feed-forward block.

    Attributes:
        up: The linear layer that widens.
        gate: The one under the activation, if the block is gated; it may be the same node as `up`, split
            behind.
        activation: What is applied to `gate`, or to `up` if there is no gate.
        product: The Mul of both paths of a gated block; None for a plain one.
        down: The linear layer that narrows.
    """

    up: Linear
    gate: Linear | None
    activation: Activation
    product: ir.Node | None
    down: Linear


def find_feedforward(node: ir.Node) -> FeedForward | None:
    """The feed-forward block whose last product is the MatMul or Gemm `node`."""
    down = find_linear(node)
    if not isinstance(down, Linear):
        return None
    hidden = source_of(down.activation)
    last = hidden.producer()
    if last is None:
        return None
    activation = find_activation(last)
    if activation is not None:
        up = _linear_behind(activation.input)
        return FeedForward(up, None, activation, None, down) if up is not None else None
    product = producer(hidden, "Mul")
    return _gated(product, down) if product is not None else None


def _gated(product: ir.Node, down: Linear) -> FeedForward | None:
    for index in (0, 1):
        gated, other = product.inputs[index], product.inputs[1 - index]
        if gated is None or other is None:
            continue
        node = source_of(gated).producer()
        activation = find_activation(node) if node is not None else None
        if activation is None:
            continue
        gate, up = _linear_behind(activation.input), _linear_behind(other)
        if gate is not None and up is not None:
            return FeedForward(up, gate, activation, product, down)
    return None


def _linear_behind(value: ir.Value) -> Linear | None:
    """The linear layer that gives `value`, or gives what `value` is a part of."""
    whole = source_of(value)
    part = producer(whole, "Split", "Slice")
    if linear_giving(whole) is None and part is not None and part.inputs[0] is not None:
        whole = source_of(part.inputs[0])
    return linear_giving(whole)

"""Feed-forwards, plain and gated, with the activation in each spelling."""

from __future__ import annotations

import math

from tests.families.linears import linear
from tests.families.writer import Writer


def feed_forward(w: Writer, x: str) -> str:
    """``f(x U) D``."""
    dims = w.spec.dims
    with w.inside("ffn"):
        hidden = activation(w, linear(w, x, "up", dims.width, dims.hidden, is_up=True))
        return linear(w, hidden, "down", dims.hidden, dims.width)


def gated_feed_forward(w: Writer, x: str) -> str:
    """``(f(x G) * (x U)) D``, with G and U in one linear where those of attention are."""
    dims = w.spec.dims
    with w.inside("ffn"):
        if w.spec.attention == "packed":
            both = linear(w, x, "up_gate", dims.width, 2 * dims.hidden, is_up=True)
            up, gate = w.ops("Split", both, w.ints(dims.hidden, dims.hidden), outputs=2, axis=-1)
        else:
            gate = linear(w, x, "gate", dims.width, dims.hidden)
            up = linear(w, x, "up", dims.width, dims.hidden, is_up=True)
        product = w.op("Mul", activation(w, gate), up)
        return linear(w, product, "down", dims.hidden, dims.width)


def activation(w: Writer, x: str) -> str:
    """The activation of `x`."""
    spelling = w.spec.activation
    if spelling == "relu":
        return w.op("Relu", x)
    if spelling == "gelu":
        return w.op("Gelu", x, approximate="tanh" if w.spec.seed % 2 else "none")
    if spelling == "contrib-gelu":
        return w.contrib("Gelu", x)
    if spelling == "silu":
        return w.op("Mul", x, w.op("Sigmoid", x))
    if spelling == "contrib-silu":
        return w.contrib("QuickGelu", x, alpha=1.0)
    if spelling == "tanh":
        return _tanh(w, x)
    return _erf(w, x)


def _erf(w: Writer, x: str) -> str:
    if w.spec.activation == "erf":
        gate = w.op("Add", w.op("Erf", w.op("Div", x, w.number(math.sqrt(2)))), w.number(1.0))
        return w.op("Mul", w.op("Mul", x, gate), w.number(0.5))
    gate = w.op("Add", w.number(1.0), w.op("Erf", w.op("Mul", x, w.number(math.sqrt(0.5)))))
    return w.op("Mul", w.op("Mul", x, w.number(0.5)), gate)


def _tanh(w: Writer, x: str) -> str:
    cube = w.op("Pow", x, w.number(3.0))
    inner = w.op("Add", x, w.op("Mul", cube, w.number(0.044715)))
    gate = w.op("Add", w.op("Tanh", w.op("Mul", inner, w.number(math.sqrt(2 / math.pi)))), w.number(1.0))
    return w.op("Mul", w.op("Mul", x, w.number(0.5)), gate)

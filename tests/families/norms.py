"""Layer norms and RMS norms in each spelling, alone and behind a residual addition."""

from __future__ import annotations

import numpy as np

from tests.families.numbers import betas, gammas
from tests.families.writer import CONTRIB, Writer

EPSILON = 1e-5
FLOAT, FLOAT16 = 1, 10


def norm(w: Writer, x: str, name: str) -> str:
    """The norm of `x` over its channels."""
    with w.inside(name):
        gamma = w.parameter("gamma", gammas(w.spec), key="gamma" if w.spec.shared == "norms" else "")
        if w.spec.is_rms:
            return _rms(w, x, gamma)
        beta = w.parameter("beta", betas(w.spec), key="beta" if w.spec.shared == "norms" else "")
        return _layer(w, x, gamma, beta)


def add_and_norm(w: Writer, x: str, branch: str, name: str) -> tuple[str, str]:
    """The norm of ``x + branch``, and the sum."""
    if w.spec.norm != "skip":
        total = w.op("Add", x, branch)
        return norm(w, total, name), total
    with w.inside(name):
        shared = w.spec.shared == "norms"
        inputs = [x, branch, w.parameter("gamma", gammas(w.spec), key="gamma" if shared else "")]
        if not w.spec.is_rms:
            inputs.append(w.parameter("beta", betas(w.spec), key="beta" if shared else ""))
        op_type = "SkipSimplifiedLayerNormalization" if w.spec.is_rms else "SkipLayerNormalization"
        normed, _, _, total = w.ops(op_type, *inputs, outputs=4, domain=CONTRIB, epsilon=EPSILON)
        for unread in (1, 2):  # mean and deviation, which only training reads
            w.nodes[-1].output[unread] = ""
        return normed, total


def _layer(w: Writer, x: str, gamma: str, beta: str) -> str:
    spelling = w.spec.norm
    if spelling == "operator" or (spelling == "skip" and w.spec.opset >= 17):
        return w.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=EPSILON)
    if spelling == "tensorflow":
        return _batch_norm_form(w, x, gamma, beta)
    x = _widened(w, x)
    mean = w.reduce_mean(x)
    centred = w.op("Sub", x, mean)
    if spelling == "recomputed":
        again = w.op("Sub", x, w.reduce_mean(x))
        square = w.op("Mul", again, again)
    else:
        square = w.op("Pow", centred, _number(w, 2.0))
    deviation = w.op("Sqrt", w.op("Add", w.reduce_mean(square), _number(w, EPSILON)))
    if spelling == "recomputed":
        normed = _narrowed(w, w.op("Mul", centred, w.op("Reciprocal", deviation)))
        return w.op("Add", beta, w.op("Mul", gamma, normed))
    normed = _narrowed(w, w.op("Div", centred, deviation))
    return w.op("Add", w.op("Mul", normed, gamma), beta)


def _widened(w: Writer, x: str) -> str:
    """Mixed precision computes norms in float32, and a model in float32 keeps the cast."""
    return w.op("Cast", x, to=FLOAT) if w.spec.clutter == "exporter" else x


def _number(w: Writer, number: float) -> str:
    dtype = np.float32 if w.spec.clutter == "exporter" else w.spec.float_type
    return w.constant(np.array(number, dtype), "number")


def _narrowed(w: Writer, x: str) -> str:
    narrow = FLOAT16 if w.spec.dtype == "float16" else FLOAT
    return w.op("Cast", x, to=narrow) if w.spec.clutter == "exporter" else x


def _batch_norm_form(w: Writer, x: str, gamma: str, beta: str) -> str:
    """``x inv + (β - mean inv)`` with ``inv = γ / deviation``, as TensorFlow's batch norm has it."""
    mean = w.reduce_mean(x)
    difference = w.op("Sub", x, mean)
    variance = w.reduce_mean(w.op("Mul", difference, difference))
    root = w.op("Reciprocal", w.op("Sqrt", w.op("Add", variance, w.number(EPSILON))))
    inverse = w.op("Mul", root, gamma)
    shift = w.op("Sub", beta, w.op("Mul", mean, inverse))
    return w.op("Add", w.op("Mul", x, inverse), shift)


def _rms(w: Writer, x: str, gamma: str) -> str:
    spelling = w.spec.norm
    if spelling == "operator" or (spelling == "skip" and w.spec.opset >= 23):
        return w.op("RMSNormalization", x, gamma, axis=-1, epsilon=EPSILON)
    if spelling == "simplified":
        return w.op("SimplifiedLayerNormalization", x, gamma, axis=-1, epsilon=EPSILON)
    x = _widened(w, x)
    if spelling == "recomputed":
        square = w.op("Mul", x, x)
        root = w.op("Sqrt", w.op("Add", _number(w, EPSILON), w.reduce_mean(square)))
        return w.op("Mul", gamma, _narrowed(w, w.op("Div", x, root)))
    square = w.op("Pow", x, _number(w, 2.0))
    root = w.op("Sqrt", w.op("Add", w.reduce_mean(square), _number(w, EPSILON)))
    inverse = w.op("Div", _number(w, 1.0), root)
    return w.op("Mul", _narrowed(w, w.op("Mul", x, inverse)), gamma)

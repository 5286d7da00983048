"""Small models in float32 that show what becomes of them in float16."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.statistics import Statistics, TensorStatistics

_ROWS = np.linspace(-3.0, 5.0, 32, dtype=np.float32).reshape(8, 4)
_NAMES = ("x", "y", "m", "n", "q", "d", "s", "z")
_WEIGHT = "float[4,4] w = {" + ", ".join(f"{value:.2f}" for value in np.linspace(-1, 1, 16)) + "}"


def _seen(**others: np.ndarray) -> Statistics:
    tensors = {name: TensorStatistics.of(others.get(name, _ROWS)) for name in _NAMES}
    return Statistics(tensors)


def _model(body: str, constants: str = _WEIGHT, between: str = "float[2,4] m, float[2,4] n") -> str:
    head = '<ir_version: 9, opset_import: ["" : 20]> g (float[2,4] x) => (float[2,4] y)'
    return f"{head} <{between}, {constants}> {{ {body} }}"


def half_examples() -> Examples:
    """For `ConvertHalf`."""
    mask = np.where(np.arange(32).reshape(8, 4) % 3 == 0, -3.0e38, 0).astype(np.float32)
    masked = "float[2,4] m, float[2,4] n, float[2,4] s"
    pair = "float a = {0.05}, int8 b = {0}, int8[2,4] q, float[2,4] d"
    return Examples(
        fires=(
            Example(_model("m = MatMul(x, w)  n = Relu(m)  y = MatMul(n, w)"), statistics=_seen()),
            Example(
                _model("m = MatMul(x, w)  s = Mul(x, f)  n = Add(m, s)  y = Softmax(n)",
                       f"{_WEIGHT}, float f = {{-3.0e38}}", masked),
                statistics=_seen(s=mask, n=mask),
            ),
            Example(
                _model("q = QuantizeLinear(x, a, b)  d = DequantizeLinear(q, a, b)  y = MatMul(d, w)",
                       f"{_WEIGHT}, {pair}"),
                statistics=_seen(),
            ),
        ),
        holds=(
            Example(_model("y = MatMul(x, w)"), "not seen its numbers"),
            Example(_model("y = Mul(x, f)", "float f = {40000}"), "near overflow", statistics=_seen()),
            Example(
                _model("q = QuantizeLinear(x, a, b)  d = DequantizeLinear(q, a, b)  y = Selu(d)",
                       pair.replace("0.05", "0.00001")),
                "too small for float16",
                statistics=_seen(),
            ),
            Example(_model("y = Selu(x)", _WEIGHT), statistics=_seen()),
        ),
    )  # fmt: skip

"""Small models with norms: the evidence of passes that move or re-spell what is around a norm."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics

_LAYER = "n = LayerNormalization<axis = -1>(x, gamma, beta)"
_NORM = "float[4] gamma = {8.0, 0.5, -3.0, 1.0}, float[4] beta = {0.5, -0.25, 0.0, 2.0}"
_WEIGHT = ", ".join(f"{value:.2f}" for value in np.linspace(-0.9, 0.7, 16))
_LINEAR = f"float[4,4] w = {{{_WEIGHT}}}, float[4] b = {{0.1, -0.2, 0.3, 0.0}}"
_UNEVEN = (np.array([-1.0, -0.5, -9.0, 3.0]), np.array([20.0, 0.5, 1.0, 5.0]))


def _model(
    body: str,
    constants: str = f"{_NORM}, {_LINEAR}",
    inputs: str = "float[N,4] x",
    outputs: str = "float[N,4] y",
    opset: int = 17,
) -> str:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs})'
    return f"{head} <{constants}> {{ {body} }}"


_PRE = _model(f"{_LAYER} m = MatMul(n, w) y = Add(m, b)")
_BARE = _model(f"{_LAYER} y = MatMul(n, w)")
_POST = _model(f"{_LAYER} m = MatMul(n, w) a = Add(m, b) y = Add(a, n)")
_POST_SPLIT = _model(f"{_LAYER} m = MatMul(n, w) a = Add(m, b) t = Tanh(a) y = Add(n, t)")
_TWO = _model(f"{_LAYER} m = Gemm(n, w, b) t = Tanh(n) y = Mul(m, t)")
_RMS = _model(
    "q = Mul(x, x) v = ReduceMean<axes = [-1], keepdims = 1>(q) e = Add(v, eps) r = Sqrt(e) d = Div(x, r) "
    "n = Mul(d, gamma) y = MatMul(n, w)",
    f"{_NORM.split(', float[4] beta')[0]}, {_LINEAR}, float eps = {{1e-5}}",
)
_SPELLED = _model(
    "u = ReduceMean<axes = [-1], keepdims = 1>(x) c = Sub(x, u) q = Mul(c, c) "
    "v = ReduceMean<axes = [-1], keepdims = 1>(q) e = Add(v, eps) r = Sqrt(e) d = Div(c, r) "
    "g = Mul(d, gamma) n = Add(g, beta) m = MatMul(n, w) y = Add(m, b)",
    f"{_NORM}, {_LINEAR}, float eps = {{1e-5}}",
    opset=13,
)

_OUTPUT = _model(f"{_LAYER} y = MatMul(n, w)", outputs="float[N,4] y, float[N,4] n")
_FIRES = (_PRE, _BARE, _POST, _POST_SPLIT, _TWO, _RMS, _SPELLED, _OUTPUT)

_TIED = _model(f"{_LAYER} m = MatMul(n, w) o = MatMul(x, w) k = MatMul(o, w) y = Add(m, k)")
_NO_LINEAR = _model(f"{_LAYER} y = Tanh(n)", _NORM)
_COMPUTED = _model(
    f"{_LAYER} y = MatMul(n, w)",
    f"float[4] beta = {{0.0, 0.0, 0.0, 0.0}}, {_LINEAR}",
    inputs="float[N,4] x, float[4] gamma",
)
_SMALL = _model(
    f"{_LAYER} y = MatMul(n, w)", f"{_NORM.replace('8.0', '0.8').replace('-3.0', '-0.3')}, {_LINEAR}"
)


def seen(low: np.ndarray, high: np.ndarray, name: str = "n") -> Statistics:
    """Statistics of one value, with nothing but its channels' extremes [C]."""
    return Statistics({name: TensorStatistics(count=1, channel=ChannelExtremes(low, high))})


def gamma_examples() -> Examples:
    """For `FoldGamma`."""
    return Examples(
        fires=tuple(Example(text) for text in _FIRES),
        holds=(
            Example(_TIED, "no linear reads it"),
            Example(_NO_LINEAR, "no linear reads it"),
            Example(_COMPUTED, "computed"),
            Example(_SMALL, "no gamma exceeds"),
        ),
    )


def shift_examples() -> Examples:
    """For `ShiftScale`."""
    uneven = seen(*_UNEVEN)
    even = seen(-np.ones(4), np.ones(4))
    return Examples(
        fires=tuple(Example(text, statistics=uneven) for text in _FIRES),
        holds=(
            Example(_TIED, "no linear reads it", statistics=uneven),
            Example(_NO_LINEAR, "no linear reads it", statistics=uneven),
            Example(_COMPUTED, "computed", statistics=uneven),
            Example(_PRE, "no statistics", statistics=seen(*_UNEVEN, name="elsewhere")),
            Example(_PRE, "even already", statistics=even),
        ),
    )


def sum_examples() -> Examples:
    """For `SumBeforeNorm`."""
    two = "float[N,4] x, float[N,4] z"
    return Examples(
        fires=(
            Example(
                _model(f"t = Tanh(z) x2 = Add(x, t) {_LAYER.replace('(x,', '(x2,')} y = Tanh(n)", _NORM, two)
            ),
            Example(_model(f"s = Add(x, z) {_LAYER.replace('(x,', '(s,')} y = Add(n, s)", _NORM, two)),
            Example(
                _model(
                    f"s = Add(x, z) {_LAYER.replace('(x,', '(s,')} y = Tanh(n)",
                    _NORM,
                    two,
                    "float[N,4] y, float[N,4] s",
                )
            ),
        ),
        holds=(
            Example(_model(f"{_LAYER} y = Tanh(n)", _NORM), "no Add"),
            Example(
                _model(f"s = Sum(x, z) {_LAYER.replace('(x,', '(s,')} y = Tanh(n)", _NORM, two), "no Add"
            ),
            Example(
                _model(f"s = Add(x, beta) {_LAYER.replace('(x,', '(s,')} y = Tanh(n)", _NORM), "a constant"
            ),
        ),
    )


_GATED = _model(
    "g = MatMul(x, w) u = MatMul(x, v) t = Tanh(g) n = Mul(t, u) y = MatMul(n, o)",
    ", ".join(f"float[4,4] {name} = {{{_WEIGHT}}}" for name in "wvo"),
)
_FEED_FORWARD = _model("g = Add(x, beta) n = Relu(g) m = MatMul(n, w) y = Add(m, b)", f"{_NORM}, {_LINEAR}")
_TWO_READERS = _model(
    "n = Tanh(x) p = MatMul(n, w) q = Gemm(n, v) r = Add(p, q) y = Add(r, n)",
    ", ".join(f"float[4,4] {name} = {{{_WEIGHT}}}" for name in "wv"),
)


def activation_examples() -> Examples:
    """For `InsertScale`."""
    towering = seen(np.array([-1.0, -0.5, -0.1, -0.2]), np.array([50.0, 0.5, 0.1, 0.2]))
    even = seen(-np.ones(4), np.ones(4))
    return Examples(
        fires=tuple(Example(text, statistics=towering) for text in (_GATED, _FEED_FORWARD, _TWO_READERS)),
        holds=(
            Example(_FEED_FORWARD, "times only", statistics=even),
            Example(_FEED_FORWARD, "no statistics", statistics=seen(*_UNEVEN, name="elsewhere")),
            Example(
                _model(
                    "n = Tanh(x) p = MatMul(n, w) q = MatMul(x, w) r = MatMul(q, w) y = Add(p, r)", _LINEAR
                ),
                "shared",
                statistics=towering,
            ),
        ),
    )

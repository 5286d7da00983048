"""Small models with residuals and hidden channels: the evidence of passes that re-spell them."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples

_LAYER = "n = LayerNormalization<axis = -1>(x, gamma, beta)"
_NORM = "float[4] gamma = {8.0, 0.5, -3.0, 1.0}, float[4] beta = {0.5, -0.25, 0.0, 2.0}"
_WEIGHT = ", ".join(f"{value:.2f}" for value in np.linspace(-0.9, 0.7, 16))
_LINEAR = f"float[4,4] w = {{{_WEIGHT}}}, float[4] b = {{0.1, -0.2, 0.3, 0.0}}"


def _model(body: str, constants: str, inputs: str = "float[N,4] x", outputs: str = "float[N,4] y") -> str:
    head = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs})'
    return f"{head} <{constants}> {{ {body} }}"


_INTEGER = (
    f"{_NORM}, int8[4,4] w = {{{', '.join(str(9 * k - 70) for k in range(16))}}}, float step = {{0.02}}, "
    "float[4] steps = {0.01, 0.02, 0.015, 0.03}, uint8 middle = {128}, int8 none = {0}, "
    "float[4] b = {0.1, -0.2, 0.3, 0.0}"
)
_CODES = "q = QuantizeLinear(z, step, middle) "
_PRODUCT = "p = com.microsoft.MatMulIntegerToFloat(q, w, step, steps, middle, none, b) "
_BARE_PRODUCT = "i = com.microsoft.MatMulIntegerToFloat(q, w, step, steps, middle, none) p = Add(i, b) "


def _kernel(body: str, constants: str = _INTEGER, outputs: str = "float[N,4] y") -> str:
    text = _model(body, constants, "float[N,4] x, float[N,4] z", outputs)
    return text.replace('"" : 17', '"" : 17, "com.microsoft" : 1')


def sub_examples() -> Examples:
    """For `SubBeforeNorm`."""
    norm, tail = _LAYER.replace("(x,", "(s,"), "y = Tanh(n)"
    floats = f"{_NORM}, {_LINEAR}"
    two = "float[N,4] x, float[N,4] z"
    return Examples(
        fires=(
            Example(_kernel(f"{_CODES}{_PRODUCT}s = Sum(p, x) {norm} {tail}")),
            Example(_kernel(f"{_CODES}{_BARE_PRODUCT}s = Sum(x, p) {norm} {tail}")),
            Example(_model(f"m = MatMul(z, w) a = Add(m, b) s = Sum(a, x) {norm} {tail}", floats, two)),
            Example(
                _kernel(
                    f"{_CODES}{_PRODUCT}m = MatMul(z, v) s = Sum(p, x, m) {norm} {tail}",
                    f"{_INTEGER}, float[4,4] v = {{{_WEIGHT}}}",
                )
            ),
        ),
        holds=(
            Example(_model(f"s = Add(x, z) {norm} {tail}", _NORM, two), "no Sum"),
            Example(_model(f"s = Sum(x, z) {norm} {tail}", _NORM, two), "cannot be changed"),
            Example(_model(f"m = MatMul(z, w) s = Sum(m, m) {norm} {tail}", floats, two), "to itself"),
            Example(
                _kernel(
                    f"{_CODES}{_PRODUCT}s = Sum(p, x) {norm} {tail}", outputs="float[N,4] y, float[N,4] p"
                ),
                "cannot be changed",
            ),
            Example(
                _kernel(f"{_CODES}{_PRODUCT}s = Sum(p, x) {norm} {tail}", _INTEGER.replace("-70", "-128")),
                "cannot be changed",
            ),
        ),
    )


_HIDDEN = (
    f"{_NORM}, {_LINEAR}, float[4,4] v = {{{_WEIGHT}}}, int64[2] picks = {{3, 1}}, int64[1] last = {{-1}}, "
    "float[N,4] h, float[N,4] a"
)
_UP = "m = MatMul(x, w) a = Add(m, b) h = Relu(a) "
_PICK = "c = Gather<axis = -1>(h, picks) "
_TOTAL = "o = ReduceSum<keepdims = 1>(c, last) "
_DOWN = "d = MatMul(h, v) y = Add(d, o)"


def slice_examples() -> Examples:
    """For `PickBySlice`."""

    def hidden(body: str, constants: str = _HIDDEN) -> str:
        return _model(body, constants)

    both = "d = MatMul(h, v) f = Add(d, o)"
    return Examples(
        fires=(
            Example(hidden(f"{_UP}{_PICK}{_TOTAL}{_DOWN}")),
            Example(
                hidden(f"a = Gemm(x, w, b) h = Relu(a) {_PICK}{_TOTAL}d = Gemm(h, v, beta) y = Mul(d, o)")
            ),
            Example(hidden(f"{_UP}{_PICK}{_TOTAL}{both} e = MatMul(h, w) y = Mul(e, f)")),
        ),
        holds=(
            Example(hidden(f"h = Relu(x) {_PICK}{_TOTAL}{_DOWN}"), "no linear and activation"),
            Example(hidden(f"{_UP}{_PICK}{_TOTAL}{both} y = Add(f, h)"), "in its order"),
            Example(hidden(f"{_UP}{_PICK}{_TOTAL}{both} y = Add(f, a)"), "in its order"),
            Example(hidden(f"{_UP}{_PICK}{_TOTAL}{_DOWN}", _HIDDEN.replace("{3, 1}", "{3, 3}")), "twice"),
            Example(hidden(f"{_UP}c = Gather<axis = 0>(h, picks) {_TOTAL}d = MatMul(c, v) y = Add(d, o)")),
        ),
    )


_TABLE = (
    f"int8[3,4] codes = {{{', '.join(str(21 * k - 128) for k in range(12))}}}, "
    "float[3,1] scales = {0.5, 0.25, 0.1}, float one = {1.0}"
)
_ROWS = "c = Gather(codes, i) s = Gather(scales, i) v = Cast<to = 1>(c) "


def rows_examples() -> Examples:
    """For `GatherDequantized`."""

    def rows(body: str, constants: str = _TABLE, inputs: str = "int64[N] i") -> str:
        return _model(body, constants, inputs, "float[N,4] y")

    return Examples(
        fires=(
            Example(rows(f"{_ROWS}y = Mul(v, s)")),
            Example(rows(f"{_ROWS}m = Mul(s, v) y = Tanh(m)")),
            Example(rows(f"{_ROWS}y = Mul(v, s)", inputs="int32[N] i")),
        ),
        holds=(
            Example(rows(f"{_ROWS}m = Mul(v, s) y = Add(m, v)"), "something else reads"),
            Example(
                rows(
                    "c = Gather(codes, i) s = Gather(scales, j) v = Cast<to = 1>(c) y = Mul(v, s)",
                    inputs="int64[N] i, int64[N] j",
                ),
                "different indices",
            ),
            Example(
                rows(f"{_ROWS}y = Mul(v, s)", _TABLE.replace("float[3,1]", "float[3]"), "int64[4] i"),
                "one for each",
            ),
            Example(rows("c = Gather(codes, i) v = Cast<to = 1>(c) y = Mul(v, one)")),
        ),
    )

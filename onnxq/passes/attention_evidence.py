"""Small models with attention and Gelus: the evidence of the passes that re-spell them."""

from __future__ import annotations

from onnxq.contract import Example, Examples


def _model(
    body: str, inputs: str, outputs: str = "float[B,S,D] y", constants: str = "float zero = {0.0}"
) -> str:
    head = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs})'
    return f"{head} <{constants}> {{ {body} }}"


_ATTENTION = "float[B,S,S] s, float[B,S,D] v"
_GUARD = "p = Softmax<axis = -1>(s) n = IsNaN(p) g = Where(n, zero, p)"


def guard_examples() -> Examples:
    """For `MoveNanGuard`."""
    return Examples(
        fires=(
            Example(_model(f"{_GUARD} y = MatMul(g, v)", _ATTENTION)),
            Example(_model(f"{_GUARD} o = MatMul(g, v) y = Tanh(o)", _ATTENTION)),
            Example(
                _model(
                    f"{_GUARD.replace('-1', '2')} o = MatMul(g, v) y = Add(o, v)",
                    _ATTENTION,
                    constants="float[1] zero = {0.0}",
                )
            ),
        ),
        holds=(
            Example(
                _model(f"{_GUARD} y = MatMul(g, v)", _ATTENTION, constants="float zero = {1.0}"),
                "something else than zero",
            ),
            Example(_model(f"{_GUARD.replace('-1', '1')} y = MatMul(g, v)", _ATTENTION), "not over the last"),
            Example(
                _model(f"{_GUARD} y = MatMul(g, v)", _ATTENTION, "float[B,S,D] y, float[B,S,S] g"),
                "one product alone",
            ),
            Example(_model("n = IsNaN(s) g = Where(n, zero, s) y = MatMul(g, v)", _ATTENTION)),
        ),
    )


def gelu_examples() -> Examples:
    """For `FuseGelu`."""
    constants = "float root = {1.4142135}, float one = {1.0}, float half = {0.5}, float k = {0.044715}, "
    constants += "float q = {0.7978846}, float three = {3.0}, float inverse = {0.70710677}"
    x, y = "float[N,4] x", "float[N,4] y"

    def spelled(body: str, inputs: str = x, outputs: str = y) -> str:
        return _model(body, inputs, outputs, constants)

    tail = "e = Erf(d) a = Add(e, one)"
    return Examples(
        fires=(
            Example(spelled(f"d = Div(x, root) {tail} m = Mul(x, a) y = Mul(m, half)")),
            Example(spelled(f"d = Mul(x, inverse) {tail} h = Mul(half, x) y = Mul(h, a)")),
            Example(spelled(f"d = Div(x, root) {tail} m = Mul(a, half) g = Mul(x, m) y = Tanh(g)")),
        ),
        holds=(
            Example(
                spelled(
                    "c = Pow(x, three) f = Mul(c, k) i = Add(x, f) j = Mul(i, q) t = Tanh(j) a = Add(t, one) "
                    "h = Mul(x, half) y = Mul(h, a)"
                ),
                "gelu-tanh",
            ),
            Example(spelled(f"d = Mul(x, half) {tail} m = Mul(x, a) y = Mul(m, half)")),
            Example(spelled("s = Sigmoid(x) y = Mul(x, s)")),
        ),
    )

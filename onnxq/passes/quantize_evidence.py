"""Small models with rounded activations: the evidence of passes that place Q and DQ."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.statistics import Statistics, TensorStatistics

_ROWS = np.linspace(-3.0, 5.0, 32, dtype=np.float32).reshape(8, 4)
_SEEN = Statistics({name: TensorStatistics.of(_ROWS) for name in ("x", "t", "v")})
_SCALES = "float s = {0.05}, uint8 z = {60}, float[4] ss = {0.1, 0.2, 0.1, 0.2}, uint8[4] zs = {1, 2, 3, 4}"
_PAIR = "q = QuantizeLinear(m, s, z)  d = DequantizeLinear(q, s, z)"


def _model(
    body: str,
    inputs: str = "float[2,3,4] x",
    outputs: str = "float y",
    constants: str = "",
) -> str:
    head = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs})'
    return f"{head} <{constants}> {{ {body} }}"


def product_examples() -> Examples:
    """For `QuantizeProducts`."""
    weight = "float[4,4] w = {" + ", ".join(f"{value:.1f}" for value in np.linspace(-1, 1, 16)) + "}"
    turned = "t = Transpose<perm = [0, 2, 1]>(x)"
    half = _model(f"{turned}  y = MatMul(x, t)", "float16[2,3,4] x", "float16[2,3,3] y")
    return Examples(
        fires=(
            Example(_model(f"{turned}  y = MatMul(x, t)", outputs="float[2,3,3] y"), statistics=_SEEN),
            Example(_model(f"{turned}  y = MatMul(t, x)", outputs="float[2,4,4] y"), statistics=_SEEN),
            Example(
                _model(
                    f"{turned}  p = MatMul(x, t)  r = Softmax(p)  y = MatMul(r, v)",
                    "float[2,3,4] x, float[2,3,4] v",
                    "float[2,3,4] y",
                ),
                statistics=_SEEN,
            ),
        ),
        holds=(
            Example(_model("y = MatMul(x, w)", outputs="float[2,3,4] y", constants=weight), statistics=_SEEN),
            Example(_model(f"{turned}  y = MatMul(x, t)", outputs="float[2,3,3] y"), "no statistics"),
            Example(half, "not float32", statistics=_SEEN),
        ),
    )


def hoist_examples() -> Examples:
    """For `HoistRounding`."""
    turn, flat = "m = Transpose<perm = [0, 2, 1]>(x)", "m = Reshape(x, shape)"
    shape = f"{_SCALES}, int64[2] shape = {{6, 4}}"
    per_channel = "q = QuantizeLinear(m, ss, zs)  d = DequantizeLinear(q, ss, zs)"
    turned, once = "float[2,4,3] y", f"{turn}  {_PAIR}  y = Identity(d)"
    return Examples(
        fires=(
            Example(_model(once, outputs=turned, constants=_SCALES)),
            Example(_model(f"{flat}  {_PAIR}  y = Relu(d)", outputs="float[6,4] y", constants=shape)),
            Example(
                _model(
                    f"m = Squeeze(x)  n = Relu(x)  {_PAIR}  e = Relu(d)  y = Add(e, n)",
                    constants=_SCALES,
                    outputs="float[2,3,4] y",
                )
            ),
        ),
        holds=(
            Example(
                _model(f"{flat}  {per_channel}  y = Relu(d)", outputs="float[6,4] y", constants=shape),
                "scale for each channel",
            ),
            Example(
                _model(f"{turn}  {_PAIR}  y = Add(d, m)", outputs=turned, constants=_SCALES), "else reads"
            ),
            Example(
                _model(f"m = Relu(x)  {_PAIR}  y = Relu(d)", outputs="float[2,3,4] y", constants=_SCALES)
            ),
        ),
    )


def factor_examples() -> Examples:
    """For `FoldFactor`."""
    numbers = ", ".join(f"{value:.2f}" for value in np.linspace(-1, 1, 16))
    weights = f"float[4,4] w = {{{numbers}}}, float[4] b = {{0.5, -1, 2, 0}}, float c = {{0.125}}"
    head, flat = "m = MatMul(x, w)  a = Add(m, b)", "float[2,3,4] y"
    turned = "t = Transpose<perm = [0, 2, 1]>(a)"
    vector = f"{weights}, float[4] cs = {{1, 2, 3, 4}}"
    return Examples(
        fires=(
            Example(_model(f"{head}  y = Mul(a, c)", outputs=flat, constants=weights)),
            Example(_model(f"{head}  {turned}  y = Div(t, c)", outputs="float[2,4,3] y", constants=weights)),
            Example(
                _model(
                    f"{head}  {turned}  p = MatMul(t, x)  s = Mul(c, p)  y = Softmax(s)",
                    outputs="float[2,4,4] y",
                    constants=weights,
                )
            ),
        ),
        holds=(
            Example(_model(f"{head}  y = Mul(a, cs)", outputs=flat, constants=vector)),
            Example(_model(f"{head}  r = Relu(a)  y = Mul(r, c)", outputs=flat, constants=weights)),
            Example(
                _model(f"{head}  s = Mul(a, c)  y = Add(s, a)", outputs=flat, constants=weights), "else reads"
            ),
        ),
    )


def picked_examples() -> Examples:
    """For `ComputePicked`."""
    draw = np.random.default_rng(4)
    arrays: dict[str, np.ndarray] = {
        "w": draw.normal(size=(4, 32)).astype(np.float32),
        "b": draw.normal(size=32).astype(np.float32),
        "picked": np.array([17, 3], np.int64),
        "many": np.arange(4, dtype=np.int64),
        "half": np.array(0.5, np.float32),
        "one": np.array(1, np.float32),
        "root": np.array(np.sqrt(2), np.float32),
    }

    def example(body: str, reason: str = "", outputs: str = "float[2,3,2] y, float[2,3,32] z") -> Example:
        head = f'<ir_version: 9, opset_import: ["" : 20]> g (float[2,3,4] x) => ({outputs})'
        read = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
        used = {name: array for name, array in arrays.items() if name in read}
        kinds = {"float32": "float", "int64": "int64"}
        declared = ", ".join(
            f"{kinds[array.dtype.name]}{list(array.shape) if array.ndim else ''} {name}"
            for name, array in used.items()
        )
        return Example(f"{head} <{declared}> {{ {body} }}", reason, constants=used)

    linear = "m = MatMul(x, w)  a = Add(m, b)"
    spelled = "c = Div(a, root)  e = Erf(c)  f = Add(e, one)  g = Mul(a, f)  h = Mul(g, half)"
    return Examples(
        fires=(
            example(f"{linear}  h = Gelu(a)  y = Gather<axis = -1>(h, picked)  z = Neg(h)"),
            example(f"{linear}  {spelled}  y = Gather<axis = -1>(h, picked)  z = Neg(h)"),
            example("m = MatMul(x, w)  h = Relu(m)  y = Gather<axis = -1>(h, picked)  z = Neg(h)"),
        ),
        holds=(
            example(
                f"{linear}  h = Gelu(a)  y = Gather<axis = -1>(h, many)  z = Neg(h)",
                "are many",
                "float[2,3,4] y, float[2,3,32] z",
            ),
            example(
                f"{linear}  h = Gelu(a)  y = Gather<axis = -1>(h, picked)", "nothing else", "float[2,3,2] y"
            ),
            example(f"{linear}  h = Sin(a)  y = Gather<axis = -1>(h, picked)  z = Neg(h)"),
        ),
    )

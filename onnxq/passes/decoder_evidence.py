"""Small models with parts of decoders: the evidence of the passes that re-spell them."""

from __future__ import annotations

from onnxq.contract import Example, Examples
from onnxq.passes.clean.evidence import evidence, graph

_SHARED = "float[B,2,T,8] k"
_REPEAT = "u = Unsqueeze(k, two)  e = Expand(u, five)  r = Reshape(e, four)"
_SHAPES = (
    "n = Shape(k)  b = Slice(n, zero, one)  t = Slice(n, two, three)  "
    "five = Concat<axis = 0>(b, two, three, t, eight)"
    "  four = Concat<axis = 0>(b, six, t, eight)"
)
_NUMBERS = "int64[1] zero = {0}, int64[1] one = {1}, " + ", ".join(
    f"int64[1] {name} = {{{value}}}" for name, value in {"two": 2, "three": 3, "six": 6, "eight": 8}.items()
)
_STATED = "float[B,6,T,8] r"


def _heads(body: str, inputs: str, outputs: str = "float[B,6,S,N] y", constants: str = "") -> str:
    return graph(
        f"{_SHAPES}  {_REPEAT}  {body}", inputs, outputs, constants=f"{_NUMBERS}{constants}, {_STATED}"
    )


def stack_examples() -> Examples:
    """For `StackHeads`."""
    query = f"{_SHARED}, float[B,6,S,8] q"
    scale = ", float c = {0.6}"
    return evidence(
        fires=(
            _heads("w = Transpose<perm = [0, 1, 3, 2]>(r)  y = MatMul(q, w)", query),
            _heads(
                "w = Transpose<perm = [0, 1, 3, 2]>(r)  v = Mul(w, c)  p = Mul(q, c)  s = MatMul(p, v)  "
                "y = Softmax<axis = -1>(s)",
                query,
                constants=scale,
            ),
            _heads("y = MatMul(p, r)", f"{_SHARED}, float[B,6,S,T] p"),
        ),
        holds=(
            (_heads("y = MatMul(p, r)", f"{_SHARED}, float[B,1,S,T] p"), "not known to have 6 heads"),
            (_heads("y = MatMul(p, r)", f"{_SHARED}, float[B,H,S,T] p"), "not known to have 6 heads"),
            (
                _heads("y = MatMul(p, r)", f"{_SHARED}, float[B,6,S,T] p").replace(
                    "float[B,6,T,8] r", "float[B,6,L,8] r"
                ),
                "more than the heads",
            ),
            (graph("y = MatMul(x, k)", "float[B,2,S,8] x, float[B,2,8,T] k", "float[B,2,S,T] y"), ""),
        ),
    )


_ANGLES = "float[B,S,4] a, float[B,6,S,8] x"
_WAVES = "j = Concat<axis = -1>(a, a)  c = Cos(j)  s = Sin(j)"
_LIFTED = "cu = Unsqueeze(c, one)  su = Unsqueeze(s, one)"
_CROSSED = (
    "l = Slice(x, zero, four, three, one)  h = Slice(x, four, end, three, one)  n = Neg(h)  "
    "k = Concat<axis = -1>(n, l)"
)
_PLACES = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3}, int64[1] four = {4}, "
_PLACES += "int64[1] end = {9223372036854775807}, float f = {1.5}"


def rotary_examples() -> Examples:
    """For `FuseRotary`."""

    def turned(body: str, inputs: str = _ANGLES, outputs: str = "float[B,6,S,8] y") -> str:
        return graph(body, inputs, outputs, constants=_PLACES)

    tail = "p = Mul(x, cu)  q = Mul(k, su)  y = Add(p, q)"
    waved = "c1 = Cos(j)  s1 = Sin(j)  c = Mul(c1, f)  s = Mul(s1, f)"
    return evidence(
        fires=(
            turned(f"{_WAVES}  {_LIFTED}  {_CROSSED}  {tail}"),
            turned(f"{_WAVES}  {_LIFTED}  {_CROSSED}  p = Mul(cu, x)  q = Mul(su, k)  y = Add(q, p)"),
            turned(f"j = Concat<axis = -1>(a, a)  {waved}  {_LIFTED}  {_CROSSED}  {tail}"),
        ),
        holds=(
            (
                turned(
                    f"j = Concat<axis = -1>(a, g)  c = Cos(j)  s = Sin(j)  {_LIFTED}  {_CROSSED}  {tail}",
                    f"{_ANGLES}, float[B,S,4] g",
                ),
                "alike for both halves",
            ),
            (
                turned(f"{_WAVES}  {_LIFTED}  {_CROSSED}  {tail}", _ANGLES.replace("[B,S,4]", "[A,S,4]")),
                "share positions",
            ),
            (
                turned(
                    f"{_WAVES}  {_LIFTED}  {_CROSSED}  {tail}",
                    _ANGLES.replace("float", "float16"),
                    "float16[B,6,S,8] y",
                ),
                "float32",
            ),
            (turned("y = Add(x, x)"), ""),
        ),
    )


_RMS = "float two = {2}, float e = {0.00001}, float[4] g = {1, 2, 0.5, -1}, int64[1] last = {-1}"
_MEAN = "v = ReduceMean<axes = [-1], keepdims = 1>(q)  s = Add(v, e)  r = Sqrt(s)"


def rms_examples() -> Examples:
    """For `RespellRMSNorm`."""
    newer = _MEAN.replace("<axes = [-1], keepdims = 1>(q)", "(q, last)")
    inverse = "i = Reciprocal(r)  n = Mul(x, i)  y = Mul(n, g)"
    double = _RMS.replace("float", "double")
    return Examples(
        fires=(
            Example(graph(f"q = Pow(x, two)  {_MEAN}  {inverse}", constants=_RMS)),
            Example(graph(f"q = Pow(x, two)  {newer}  {inverse}", constants=_RMS, opset=18)),
            Example(graph(f"q = Mul(x, x)  {_MEAN}  n = Div(x, r)  y = Mul(g, n)", constants=_RMS)),
        ),
        holds=(
            Example(graph(f"q = Pow(x, two)  {_MEAN}  n = Div(x, r)  y = Mul(n, g)", constants=_RMS)),
            Example(
                graph(f"q = Pow(x, two)  {_MEAN}  i = Reciprocal(r)  y = Mul(x, i)", constants=_RMS),
                "no shift",
            ),
            Example(
                graph(
                    f"q = Pow(x, two)  {_MEAN}  {inverse}", "double[N,4] x", "double[N,4] y", constants=double
                ),
                "float32",
            ),
            Example(graph("y = Mul(x, g)", constants=_RMS)),
        ),
    )

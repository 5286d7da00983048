"""Small models of integer products whose rows have scales of their own."""

from __future__ import annotations

from onnxq.contract import Example, Examples

_CODES = ", ".join(str(9 * k - 70) for k in range(16))
_CONSTANTS = (
    f"int8[4,4] w = {{{_CODES}}}, float[4] steps = {{0.01, 0.02, 0.015, 0.03}}, "
    "uint8 middle = {128}, uint8 other = {127}, int8 none = {0}, float one = {1}, float least = {1e-28}, "
    "float level = {0.007874016}, int64[1] last = {-1}, float[4] b = {0.1, -0.2, 0.3, 0.0}"
)
_ROWS = "z = Tanh(x)"
_FACTOR = "k = Cast<to = 1>(seen)"
_GUARD = "g = Mul(z, k)"
_REACH = "high = ReduceMax(g, last) low = ReduceMin(g, last) depth = Neg(low) reach = Max(high, depth, least)"
_SCALE = "s = Mul(reach, level) i = Reciprocal(s) e = Mul(g, i)"
_QUANTIZE = "q = QuantizeLinear(e, one, middle)"
_PRODUCT = "p = com.microsoft.MatMulIntegerToFloat(q, w, s, steps, middle, none)"
_TAIL = "y = Add(p, b)"


def _model(*steps: str, factors: str = "B,N,1", batch: str = "B", kind: str = "bool") -> str:
    """A graph of these steps; `factors` is the shape of the factor, `batch` the number of samples in x."""
    head = '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>'
    inputs = f"float[{batch},N,4] x, {kind}[{factors}] seen"
    known = f"float[{batch},N,4] z, float[B,N,4] g, float[{factors}] k"
    return f"{head} g ({inputs}) => (float[B,N,4] y) <{_CONSTANTS}, {known}> {{ {' '.join(steps)} }}"


def row_factor_examples() -> Examples:
    """For `FoldRowFactor`."""
    middle = (_ROWS, _FACTOR, _GUARD, _REACH, _SCALE, _QUANTIZE)
    swapped = (_ROWS, _FACTOR, "g = Mul(k, z)", _REACH, _SCALE, _QUANTIZE)
    computed = (_ROWS, "k = Tanh(seen)", _GUARD, _REACH, _SCALE, _QUANTIZE)
    twice = "r = com.microsoft.MatMulIntegerToFloat(q, w, s, steps, middle, none) t = Sub(p, r) y = Add(t, b)"
    biased = _PRODUCT.replace("none)", "none, b)")
    elsewhere = _PRODUCT.replace("middle, none", "other, none")
    return Examples(
        fires=(
            Example(_model(*middle, _PRODUCT, _TAIL)),
            Example(_model(*swapped, _PRODUCT, _TAIL)),
            Example(_model(*middle, _PRODUCT, twice)),
            Example(_model(*middle, _PRODUCT, _TAIL, factors="1,N,1")),
        ),
        holds=(
            Example(_model(*middle, _PRODUCT, _TAIL, factors="B,N,4"), "one factor for each row"),
            Example(_model(*middle, _PRODUCT, _TAIL, batch="1"), "one factor for each row"),
            Example(_model(*middle, _PRODUCT, "m = Add(p, b) y = Add(m, g)"), "reads what is multiplied"),
            Example(_model(*middle, elsewhere, _TAIL), "reads the codes"),
            Example(_model(*middle, biased, "y = Tanh(p)"), "reads the codes"),
            Example(_model(*middle, _PRODUCT, "m = Add(p, b) y = Add(m, s)"), "reads the scales"),
            Example(_model(*computed, _PRODUCT, _TAIL, kind="float")),
        ),
    )

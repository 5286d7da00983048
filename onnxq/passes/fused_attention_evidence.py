"""Small attention cores as exporters spell them: the evidence of the pass that gives them an operator."""

from __future__ import annotations

from dataclasses import replace

from onnxq.contract import Example, Examples

_SPLIT = (
    "qs = Reshape(q, split) qt = Transpose<perm = [0, 2, 1, 3]>(qs) "
    "vs = Reshape(v, split) vt = Transpose<perm = [0, 2, 1, 3]>(vs) ks = Reshape(k, split) "
)
_KEYS = "kt = Transpose<perm = [0, 2, 3, 1]>(ks) "
_SCORES = "s = MatMul(qt, kt) "
_MERGE = "ct = Transpose<perm = [0, 2, 1, 3]>(c) y = Reshape(ct, merged)"
_PLAIN = f"{_SPLIT}{_KEYS}{_SCORES}"
_SHAPES = (
    "float[B,S,2,4] qs, float[B,2,S,4] qt, float[B,T,2,4] ks, float[B,T,2,4] vs, float[B,2,T,4] vt, "
    "float[B,2,4,T] kt, float[B,2,S,T] s, float[B,2,S,4] c, float[B,S,2,4] ct"
)
_CONSTANTS = (
    "int64[4] split = {0, 0, 2, 4}, int64[3] merged = {0, 0, 8}, float half = {0.5}, float zero = {0.0}"
)
_INPUTS = "float[B,S,8] q, float[B,T,8] k, float[B,T,8] v"
_GUARD = "n = IsNaN(p) g = Where(n, zero, p) c = MatMul(g, vt) "


def _model(
    body: str,
    inputs: str = _INPUTS,
    outputs: str = "float[B,S,8] y",
    constants: str = f"{_CONSTANTS}, {_SHAPES}",
    opset: int = 23,
) -> str:
    head = f'<ir_version: 11, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs})'
    return f"{head} <{constants}> {{ {body} }}"


def _masked(mask: str, inputs: str, tail: str = "p = Softmax<axis = -1>(a) c = MatMul(p, vt) ") -> str:
    return _model(
        f"{_PLAIN}{mask}a = Add(s, m) {tail}{_MERGE}",
        f"{_INPUTS}, {inputs}",
        constants=f"{_CONSTANTS}, {_SHAPES}, float[B,2,S,T] a, float[B,2,S,T] p, float[B,1,S,T] m",
    )


_SOFT = "p = Softmax<axis = -1>(s) c = MatMul(p, vt) "
_DETOUR = (
    f"{_SPLIT}kp = Transpose<perm = [0, 2, 1, 3]>(ks) kr = Reshape(kp, flat) "
    "kq = Transpose<perm = [0, 2, 1]>(kr) kt = Reshape(kq, apart) km = Mul(kt, half) qm = Mul(half, qt) "
    f"s = MatMul(qm, km) {_SOFT}{_MERGE}"
)
_BY_WAY = (
    f"{_CONSTANTS}, {_SHAPES}, int64[3] flat = {{-1, 6, 4}}, int64[4] apart = {{-1, 2, 4, 6}}, "
    "float[B,2,6,4] kp, float[N,6,4] kr, float[N,4,6] kq"
).replace("T", "6")
_SHORT = "float[B,S,8] q, float[B,6,8] k, float[B,6,8] v"

_APART = (
    "kn = Concat<axis = 2>(past, k) ku = Unsqueeze(kn, two) ke = Expand(ku, often) kr = Reshape(ke, whole) "
    "vu = Unsqueeze(v, two) ve = Expand(vu, often) vr = Reshape(ve, whole) "
    "kt = Transpose<perm = [0, 1, 3, 2]>(kr) qm = Mul(q, half) km = Mul(kt, half) s = MatMul(qm, km) "
    f"p = Softmax<axis = -1>(s) c = MatMul(p, vr) {_MERGE}"
)
_APART_INPUTS = "float[B,4,S,2] q, float[B,2,3,2] past, float[B,2,2,2] k, float[B,2,5,2] v"
_APART_SHAPES = (
    "int64[3] merged = {0, 0, 8}, float half = {0.5}, int64[1] two = {2}, int64[5] often = {1, 1, 2, 1, 1}, "
    "int64[4] whole = {0, 4, -1, 2}, float[B,2,5,2] kn, float[B,4,5,2] kr, float[B,4,5,2] vr, "
    "float[B,4,2,5] kt, float[B,4,S,5] s, float[B,4,S,2] c, float[B,S,4,2] ct"
)


def _apart(old: str = "", new: str = "") -> str:
    """Heads that lie apart, with a past, and of keys and values repeated; with `new` for `old`."""
    return _model(_APART, _APART_INPUTS, constants=_APART_SHAPES).replace(old, new)


def attention_examples() -> Examples:
    """For `FuseAttention`."""
    scaled = f"{_PLAIN}d = Mul(s, half) p = Softmax<axis = -1>(d) c = MatMul(p, vt) {_MERGE}"
    divided = f"{_PLAIN}d = Div(s, half) p = Softmax<axis = -1>(d) c = MatMul(p, vt) {_MERGE}"
    return Examples(
        fires=(
            Example(_model(f"{_PLAIN}{_SOFT}{_MERGE}")),
            Example(_model(scaled)),
            Example(_model(divided)),
            Example(_model(_DETOUR, _SHORT, constants=_BY_WAY)),
            Example(_masked("", "float[B,1,S,T] m")),
            Example(
                _masked("m = Mul(x, half) ", "float[B,1,1,T] x").replace(
                    "float[B,1,S,T] m", "float[B,1,1,T] m"
                )
            ),
            Example(
                _masked(
                    "m = Where(b, zero, low) ", "bool[B,1,S,T] b", f"p = Softmax<axis = -1>(a) {_GUARD}"
                ).replace("<int64", "<float low = {-inf}, int64")
            ),
            Example(_apart()),
        ),
        holds=(
            Example(
                _model(f"{_PLAIN}{_SOFT}{_MERGE}", outputs="float[B,S,8] y, float[B,2,S,T] p"),
                "reads the softmax",
            ),
            Example(_model(f"{_PLAIN}{_SOFT.replace('-1', '2')}{_MERGE}"), "not over the keys"),
            Example(_model(f"{_PLAIN}{_SOFT}y = Tanh(c)", outputs="float[B,2,S,4] y"), "not merged"),
            Example(
                _model(
                    f"{_SPLIT}t = Tanh(qt) {_KEYS}s = MatMul(t, kt) {_SOFT}{_MERGE}",
                ),
                "the queries are not split",
            ),
            Example(_apart("[B,4,S,2] q", "[A,4,S,2] q"), "as many samples"),
            Example(_apart("[B,4,S,2] q", "[B,H,S,2] q"), "nor of known heads"),
        ),
    )


def opset_examples() -> Examples:
    """For `RaiseForAttention`."""
    core = f"{_PLAIN}{_SOFT}{_MERGE}"
    return Examples(
        fires=(Example(_model(core, opset=17)), Example(_model(core, opset=22))),
        holds=(
            Example(_model(core)),
            Example(
                _model(f"{_PLAIN}{_SOFT}y = Tanh(c)", outputs="float[B,2,S,4] y", opset=17), "no attention"
            ),
        ),
    )


def mask_examples() -> Examples:
    """For `BoundMask`."""

    def core(mask: str, given: str, low: str = "-inf") -> Example:
        body = f"{mask}y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, m)"
        return Example(
            _model(body, f"{_INPUTS}, {given}", constants=f"float low = {{{low}}}, float zero = {{0.0}}")
        )

    def held(mask: str, given: str, reason: str, low: str = "-inf") -> Example:
        return replace(core(mask, given, low), reason=reason)

    seen = "bool[B,1,S,T] b"
    return Examples(
        fires=(
            core("m = Where(b, zero, low) ", seen),
            core("w = Where(b, zero, low) n = Identity(w) m = Add(n, x) ", f"{seen}, float[B,1,1,T] x"),
            core("f = Cast<to = 1>(b) m = Mul(f, low) ", seen, "-10000.0"),
        ),
        holds=(
            held("", "float[B,1,S,T] m", "nothing tells"),
            held("m = Where(b, zero, low) ", seen, "nothing tells", "-3.0"),
            held("n = And(b, b) m = Identity(n) ", seen, "nothing tells"),
            held("", "bool[B,1,S,T] m", "not float32"),
        ),
    )

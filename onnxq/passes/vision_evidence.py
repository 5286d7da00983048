"""Small models that prove the passes over convolutions."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.passes.clean.evidence import graph
from onnxq.statistics import Statistic, Statistics, TensorStatistics

_X, _Y = "float[B,4,5,6] x", "float[B,C,H,W] y"
_SHAPES = {
    "w44": (4, 3, 4, 4),
    "w22": (4, 3, 2, 2),
    "w33": (4, 3, 3, 3),
    "w55": (4, 3, 5, 5),
    "w24": (4, 3, 2, 4),
    "grouped": (4, 3, 2, 2),
    "forward": (3, 4, 3, 3),
    "forward_grouped": (6, 2, 3, 3),
    "narrow": (1, 4, 1, 1),
    "wide": (16, 4, 1, 1),
    "square": (2, 4, 1, 1),
    "square3": (16, 16, 3, 3),
    "deal": (32, 4, 2, 2),
    "point": (8, 32, 1, 1),
    "point16": (16, 16, 1, 1),
    "narrow16": (2, 16, 1, 1),
    "halves": (16, 8, 3, 3),
    "w43": (4, 3),
    "g113": (1, 1, 3),
    "r51": (5, 1),
    "b8": (8,),
    "b16": (16,),
    "b3": (3,),
    "b6": (6,),
    "b1": (1,),
    "b2": (2,),
    "g3": (3,),
    "m3": (3,),
    "v3": (3,),
    "g6": (6,),
    "m6": (6,),
    "v6": (6,),
}


def example(
    body: str, used: str, inputs: str = _X, outputs: str = _Y, reason: str = "", described: str = ""
) -> Example:
    """A model with the random constants that `used` names; variances are positive.

    `described` declares the types and shapes of values inside, as shape inference would.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in used.split():
        draw = np.random.default_rng(len(arrays))
        array = draw.normal(size=_SHAPES[name]).astype(np.float32)
        arrays[name] = np.abs(array) + np.float32(0.1) if name.startswith("v") else array
    told = [f"float[{','.join(map(str, each.shape))}] {name}" for name, each in arrays.items()]
    declared = ", ".join([*told, *filter(None, [described])])
    return Example(graph(body, inputs, outputs, constants=declared), reason, constants=arrays)


def batch_norm_examples() -> Examples:
    """For `FoldBatchNorm`."""
    norm = "y = BatchNormalization(c, g3, b3, m3, v3)"
    numbers = "g3 b3 m3 v3"
    return Examples(
        fires=(
            example(f"c = Conv(x, forward) {norm}", f"forward {numbers}"),
            example(f"c = ConvTranspose<strides = [2, 2]>(x, w33, b3) {norm}", f"w33 {numbers}"),
            example(
                "c = Conv<group = 2>(x, forward_grouped, b6) "
                "n = BatchNormalization<epsilon = 0.01>(c, g6, b6, m6, v6) y = Relu(n)",
                "forward_grouped g6 b6 m6 v6",
            ),
            example(
                "c = ConvTranspose<group = 2>(x, grouped) y = BatchNormalization(c, g6, b6, m6, v6)",
                "grouped g6 b6 m6 v6",
            ),
        ),
        holds=(
            example(f"c = Relu(x) {norm}", numbers, "float[B,3,5,6] x", reason="no convolution"),
            example(
                f"c = Conv(x, forward) {norm} z = Relu(c)",
                f"forward {numbers}",
                outputs=f"{_Y}, float[B,C,H,W] z",
                reason="read elsewhere",
            ),
            example(
                f"c = Conv(x, forward) {norm}",
                f"forward {numbers}",
                f"{_X}, float[3] m3",
                reason="not constant",
            ),
            example("y = Conv(x, forward)", "forward"),
        ),
    )


def phase_examples() -> Examples:
    """For `PhaseTransposedConvs`."""
    return Examples(
        fires=(
            example("y = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w44, b3)", "w44 b3"),
            example("y = ConvTranspose<strides = [2, 2]>(x, w22)", "w22"),
            example(
                "t = ConvTranspose<strides = [2, 2], pads = [1, 0, 0, 1]>(x, w24, b3) y = Relu(t)", "w24 b3"
            ),
            example("y = ConvTranspose<strides = [4, 4], pads = [3, 1, 2, 0]>(x, w44)", "w44"),
            example("t = Tanh(x) y = ConvTranspose<strides = [2, 2]>(t, w44)", "w44", "float[B,4,H0,W0] x"),
        ),
        holds=(
            example("y = ConvTranspose<strides = [2, 2]>(x, w33)", "w33", reason="no multiple of its stride"),
            example("y = ConvTranspose(x, w33)", "w33", reason="stride is 1"),
            example("y = ConvTranspose<strides = [2, 1]>(x, w22)", "w22", reason="by one number"),
            example("y = ConvTranspose<strides = [2, 2], group = 2>(x, grouped)", "grouped", reason="groups"),
            example(
                "y = ConvTranspose<strides = [2, 2], output_padding = [1, 1]>(x, w22)",
                "w22",
                reason="more than a phase has",
            ),
            example("y = Conv<strides = [2, 2]>(x, forward)", "forward"),
        ),
    )


def narrow_examples() -> Examples:
    """For `NarrowBeforeUpsampling`."""
    deep = "float[B,16,5,6] x"
    dealt = "d = DepthToSpace<blocksize = 2>(t)"
    resize = 'Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">'
    twice = "s = Constant<value = float[4] {1.0, 1.0, 2.0, 1.5}>()"
    ends = (
        "a = Constant<value = int64[2] {1, 1}>() e = Constant<value = int64[2] {-1, -2}>() "
        "axes = Constant<value = int64[2] {2, 3}>()"
    )
    return Examples(
        fires=(
            example(f"t = Tanh(x) {dealt} y = Conv(d, narrow, b1)", "narrow b1", deep),
            example(
                't = Tanh(x) d = DepthToSpace<blocksize = 2, mode = "CRD">(t) y = Conv(d, narrow, b1)',
                "narrow b1",
                deep,
            ),
            example(
                f"t = Tanh(x) {dealt} {ends} c = Slice(d, a, e, axes) y = Conv(c, narrow)", "narrow", deep
            ),
            example(f"t = Tanh(x) {twice} u = {resize}(t, , s) y = Conv(u, narrow, b1)", "narrow b1"),
            example(
                "t = Tanh(x) n = Constant<value = int64[4] {2, 4, 7, 9}>() "
                'u = Resize<mode = "cubic">(t, , , n) y = Conv(u, narrow, b1)',
                "narrow b1",
                "float[2,4,5,6] x",
                described="float[2,4,5,6] t",
            ),
        ),
        holds=(
            example(f"t = Tanh(x) {twice} u = {resize}(t, , s) y = Conv(u, wide)", "wide"),
            example(
                f"t = Tanh(x) {dealt} y = Conv(d, narrow) z = Relu(d)",
                "narrow",
                deep,
                f"{_Y}, float[B,C,H,W] z",
                reason="read elsewhere",
            ),
            example(
                't = Tanh(x) n = Shape(o) u = Resize<mode = "linear">(t, , , n) y = Conv(u, narrow)',
                "narrow",
                f"{_X}, float[B,4,P,Q] o",
                reason="sizes are computed",
            ),
            example(
                "t = Tanh(x) s = Constant<value = float[4] {1.0, 1.0, 0.5, 0.5}>() "
                f"u = {resize}(t, , s) y = Conv(u, narrow)",
                "narrow",
                reason="does not enlarge",
            ),
            example(
                f"t = Tanh(x) {dealt} y = Conv(d, square)", "square", deep, reason="grow more than it saves"
            ),
        ),
    )


_GRID = (
    "s = Constant<value = float {0.05}>() z = Constant<value = uint8 {100}>() "
    "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
)


def code_examples() -> Examples:
    """For `MoveCodes`."""
    codes = "uint8[B,C,H,W] y"
    moved = "m = Transpose<perm = [0, 2, 3, 1]>(d)"
    crop = (
        "a = Constant<value = int64[1] {1}>() e = Constant<value = int64[1] {-1}>() "
        "axes = Constant<value = int64[1] {3}>() m = Slice(d, a, e, axes)"
    )
    return Examples(
        fires=(
            example(f"{_GRID} {moved} y = QuantizeLinear(m, s, z)", "", outputs=codes),
            example(
                f"{_GRID} {crop} t = DepthToSpace<blocksize = 2>(m) y = QuantizeLinear(t, s, z)",
                "",
                outputs=codes,
            ),
            example(f"{_GRID} n = QuantizeLinear(d, s, z) y = DequantizeLinear(n, s, z)", ""),
        ),
        holds=(
            example(
                f"{_GRID} {moved} w = Constant<value = float {{0.04}}>() y = QuantizeLinear(m, w, z)",
                "",
                outputs=codes,
                reason="another grid",
            ),
            example(f"{_GRID} r = Relu(d) y = QuantizeLinear(r, s, z)", "", outputs=codes),
            example(
                f"{_GRID} {moved} y = QuantizeLinear(m, s, z) o = Relu(m)",
                "",
                outputs=f"{codes}, float[B,H,W,C] o",
            ),
            example(
                "s = Constant<value = float {0.05}>() z = Constant<value = uint8 {100}>() "
                "d = DequantizeLinear(x, s, z) y = QuantizeLinear(d, s, z)",
                "",
                "uint8[B,4,5,6] x",
                codes,
                "would be its input",
            ),
        ),
    )


def across_examples() -> Examples:
    """For `CancelAcross`."""
    first, last = "t = Transpose<perm = [0, 3, 1, 2]>(x)", "y = Transpose<perm = [0, 2, 3, 1]>"
    image, other = "float[B,5,6,8] x", "float[B,H,W,C] y"
    crop = (
        "a = Constant<value = int64[2] {1, 0}>() e = Constant<value = int64[2] {4, -1}>() "
        "axes = Constant<value = int64[2] {2, -1}>() c = Slice(t, a, e, axes)"
    )
    tokens = "n = Constant<value = int64[4] {-1, 8, 5, 6}>() r = Reshape(t, n)"
    return Examples(
        fires=(
            example(f"{first} r = Relu(t) {last}(r)", "", image, other),
            example(f"{first} {crop} {last}(c)", "", image, other),
            example(
                f"{first} d = DepthToSpace<blocksize = 2>(t) {last}(d)",
                "",
                "float[2,5,6,8] x",
                other,
                described="float[2,2,10,12] d",
            ),
            example(
                f"t = Transpose<perm = [0, 2, 1]>(x) {tokens} {last}(r)",
                "",
                "float[B,30,8] x",
                other,
                described="float[B,8,5,6] r",
            ),
            example(
                f"{first} n = Constant<value = int64[3] {{2, 8, -1}}>() r = Reshape(t, n) h = Tanh(r) "
                "y = Transpose<perm = [0, 2, 1]>(h)",
                "",
                "float[2,5,6,8] x",
                "float[B,P,C] y",
                described="float[2,8,30] r",
            ),
        ),
        holds=(
            example(
                f"{first} r = Relu(t) y = Transpose<perm = [0, 3, 2, 1]>(r)", "", image, other, "do not undo"
            ),
            example(
                f'{first} d = DepthToSpace<blocksize = 2, mode = "CRD">(t) {last}(d)',
                "",
                "float[2,5,6,8] x",
                other,
                "single channels",
            ),
            example(f"{first} r = Relu(t) {last}(r) z = Tanh(r)", "", image, f"{other}, float[B,C,H,W] z"),
            example(
                f"{first} n = Constant<value = int64[4] {{2, 6, 8, 5}}>() r = Reshape(t, n) {last}(r)",
                "",
                "float[2,5,6,8] x",
                other,
                "mixes axes",
                "float[2,6,8,5] r",
            ),
        ),
    )


def quantizable_examples() -> Examples:
    """For `QuantizeConvs`."""
    deep, shown = "float[2,16,6,6] x", "float[2,C,H,W] y"
    chain = (
        "c = Conv<pads = [1, 1, 1, 1]>(x, square3, b16) r = Relu(c) "
        "d = DepthToSpace<blocksize = 2>(r) e = Conv<pads = [0, 1, 1, 0]>(d, deal) y = Conv(e, point, b8)"
    )
    one = "y = Conv(x, point16, b16)"
    two = "c = Conv(x, square3) r = Relu(c) a = Conv(r, point16) b = Conv(r, point16, b16) y = Add(a, b)"
    return Examples(
        fires=(
            _seen(one, "point16 b16", deep, shown),
            _seen(chain, "square3 b16 deal point b8", deep, shown),
            _seen(two, "square3 point16 b16", deep, shown),
        ),
        holds=(
            example(one, "point16 b16", deep, shown, "no statistics"),
            _seen("y = Conv(x, square3)", "square3", deep, shown, "read as floats"),
            _seen("y = Conv(x, narrow16)", "narrow16", deep, shown, "too small"),
            _seen("y = Conv<group = 2>(x, halves)", "halves", deep, shown, "groups"),
            _seen("y = ConvTranspose(x, square3)", "square3", deep, shown, "transposed"),
        ),
    )


def _seen(body: str, used: str, inputs: str, outputs: str, reason: str = "") -> Example:
    """An example with statistics of everything a convolution there reads."""
    draw = np.random.default_rng(0)
    plain = example(body, used, inputs, outputs, reason)
    seen = {
        name: TensorStatistics.of(draw.normal(size=(32, 8)).astype(np.float32), (Statistic.HISTOGRAM,))
        for name in ("x", "e")
    }
    floored = np.abs(draw.normal(size=(32, 8))).astype(np.float32)
    seen |= {name: TensorStatistics.of(floored, (Statistic.HISTOGRAM,)) for name in ("r", "d")}
    return Example(plain.text, reason, constants=plain.constants, statistics=Statistics(seen))


def layer_scale_examples() -> Examples:
    """For `FoldLayerScale`."""
    rows, out = "float[B,N,4] x", "float[B,N,3] y"
    return Examples(
        fires=(
            example("m = MatMul(x, w43) a = Add(b3, m) y = Mul(a, g3)", "w43 b3 g3", rows, out),
            example("m = MatMul(x, w43) y = Mul(g3, m)", "w43 g3", rows, out),
            example(
                "m = Gemm<alpha = 0.5>(x, w43, b3) y = Div(m, v3)",
                "w43 b3 v3",
                "float[N,4] x",
                "float[N,3] y",
            ),
            example(
                "m = MatMul(x, w43) a = Add(m, b3) s = Mul(a, g113) y = Add(s, o)",
                "w43 b3 g113",
                f"{rows}, float[B,N,3] o",
                out,
            ),
        ),
        holds=(
            example("m = MatMul(x, w43) s = Mul(m, g3) y = Add(s, m)", "w43 g3", rows, out, "read elsewhere"),
            example("m = MatMul(x, w43) y = Mul(m, r51)", "w43 r51", "float[B,5,4] x", out, "not one factor"),
            example(
                "m = MatMul(x, w43) s = Mul(m, g3) n = MatMul(o, w43) y = Add(s, n)",
                "w43 g3",
                f"{rows}, float[B,N,4] o",
                out,
                "used elsewhere",
            ),
            example("m = MatMul(x, w43) y = Mul(m, o)", "w43", f"{rows}, float[B,N,3] o", out),
        ),
    )

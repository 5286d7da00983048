"""Small models that prove the passes over convolutions."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.passes.clean.evidence import graph

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
    "narrow16": (2, 16, 1, 1),
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


def example(body: str, used: str, inputs: str = _X, outputs: str = _Y, reason: str = "") -> Example:
    """A model with the random constants that `used` names; variances are positive."""
    arrays: dict[str, np.ndarray] = {}
    for name in used.split():
        draw = np.random.default_rng(len(arrays))
        array = draw.normal(size=_SHAPES[name]).astype(np.float32)
        arrays[name] = np.abs(array) + np.float32(0.1) if name.startswith("v") else array
    declared = ", ".join(f"float[{','.join(map(str, each.shape))}] {name}" for name, each in arrays.items())
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

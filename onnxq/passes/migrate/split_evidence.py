"""Small models with channels that tower over the others: the evidence of passes that part channels."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics

WIDTH = 16
TOWERS = (3, 11)


def _constants() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    made = {name: random.normal(size=(WIDTH, WIDTH)) / 4 for name in ("w", "v", "o")}
    made |= {name: random.normal(size=WIDTH) for name in ("b", "beta")}
    made |= {"gamma": random.uniform(0.5, 2.0, WIDTH), "narrow": random.normal(size=(WIDTH, 4))}
    return {name: array.astype(np.float32) for name, array in made.items()}


def seen(towering: bool = True, name: str = "n", factor: float = 40.0) -> Statistics:
    """Statistics of one value whose channels `TOWERS` reach `factor` times further, if at all."""
    reach = np.ones(WIDTH)
    if towering:
        reach[list(TOWERS)] = factor
    return Statistics({name: TensorStatistics(count=1, channel=ChannelExtremes(-0.2 * reach, reach))})


def example(
    body: str,
    reason: str = "",
    statistics: Statistics | None = None,
    inputs: str = "float[B,N,16] x",
    outputs: str = "float[B,N,16] y",
) -> Example:
    """A model whose constants are those of `_constants` that `body` reads."""
    used = {name: each for name, each in _constants().items() if f"{name})" in body or f"{name}," in body}
    declared = ", ".join(f"float[{','.join(map(str, array.shape))}] {name}" for name, array in used.items())
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) <{declared}> {{ {body} }}'
    return Example(text, reason, constants=used, statistics=seen() if statistics is None else statistics)


HIDDEN = "m = MatMul(x, w) h = Add(m, b) n = Relu(h)"
NORM = "n = LayerNormalization<axis = -1>(x, gamma, beta)"
LINEAR = f"{HIDDEN} p = MatMul(n, v) y = Add(p, b)"


def split_examples() -> Examples:
    """For `SplitChannels`."""
    bodies = (
        LINEAR,
        f"{HIDDEN} p = MatMul(n, v) q = Add(p, b) y = Add(q, x)",
        f"{NORM} q = MatMul(n, w) k = MatMul(n, v) s = Mul(q, k) y = Add(s, n)",
        f"{NORM} q = MatMul(n, w) k = MatMul(n, v) y = Add(q, k)",
    )
    return Examples(
        fires=(
            *(example(body) for body in bodies),
            example(
                "n = Tanh(x) y = Gemm<transB = 1, alpha = 0.5>(n, w, b)",
                inputs="float[N,16] x",
                outputs="float[N,16] y",
            ),
        ),
        holds=(
            example(LINEAR, "no channel stands out", seen(towering=False)),
            example(LINEAR, "no statistics", seen(name="elsewhere")),
            example("n = Tanh(x) y = MatMul(n, narrow)", outputs="float[B,N,4] y"),
            example(
                "n = Tanh(x) p = MatMul(n, w) q = MatMul(x, w) r = MatMul(q, w) y = Add(p, r)",
                "shared widely",
            ),
        ),
    )


def disassembly_examples() -> Examples:
    """For `DisassembleChannels`: one example for each form."""
    gated = (
        "g = MatMul(x, w) s = Sigmoid(g) a = Mul(g, s) k = MatMul(x, o) f = Add(k, b) n = Mul(a, f) "
        "y = MatMul(n, v)"
    )
    bodies = (
        "m = MatMul(x, w) n = Add(m, b) y = MatMul(n, v)",
        LINEAR,
        gated,
        f"{NORM} q = MatMul(n, w) k = MatMul(n, v) y = Mul(q, k)",
        f"{NORM} q = MatMul(n, w) y = Add(q, n)",
        "n = Tanh(x) p = MatMul(n, v) y = Add(p, b)",
    )
    return Examples(
        fires=tuple(example(body) for body in bodies),
        holds=(
            example(LINEAR, "times only", seen(towering=False)),
            example(LINEAR, "no statistics", seen(name="elsewhere")),
            example("n = Tanh(x) y = MatMul(n, narrow)", outputs="float[B,N,4] y"),
            example(
                "n = Tanh(x) p = MatMul(n, w) q = MatMul(x, w) r = MatMul(q, w) y = Add(p, r)",
                "shared widely",
            ),
        ),
    )

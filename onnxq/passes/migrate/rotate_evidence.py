"""Small models whose channels can be rotated in blocks, and some that cannot."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples

WIDTH, ODD = 32, 24


def _constants() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    made = {name: random.normal(size=(WIDTH, WIDTH)) / 6 for name in ("w", "v", "o")}
    made |= {name: random.normal(size=WIDTH) for name in ("b", "beta")}
    made |= {"gamma": random.uniform(0.5, 2.0, WIDTH), "narrow": random.normal(size=(WIDTH, 4))}
    made |= {"odd": random.normal(size=(ODD, WIDTH))}
    return {name: array.astype(np.float32) for name, array in made.items()}


def _example(
    body: str, reason: str = "", rows: str = "B,N", columns: int = WIDTH, width: int = WIDTH
) -> Example:
    used = {name: each for name, each in _constants().items() if f"{name})" in body or f"{name}," in body}
    declared = ", ".join(f"float[{','.join(map(str, array.shape))}] {name}" for name, array in used.items())
    signature = f"(float[{rows},{width}] x) => (float[{rows},{columns}] y)"
    text = f'<ir_version: 8, opset_import: ["" : 17]> g {signature} <{declared}> {{ {body} }}'
    return Example(text, reason, constants=used)


_NORM = "n = LayerNormalization<axis = -1>(x, gamma, beta)"


def rotation_examples() -> Examples:
    """For `RotateChannels`."""
    return Examples(
        fires=(
            _example("n = Tanh(x) p = MatMul(n, v) y = Add(p, b)"),
            _example(f"{_NORM} q = MatMul(n, w) k = MatMul(n, v) s = Mul(q, k) y = Add(s, n)"),
            _example("n = Tanh(x) y = Gemm<transB = 1, alpha = 0.5>(n, w, b)", rows="N"),
            _example("g = MatMul(x, w) s = Sigmoid(g) k = MatMul(x, o) n = Mul(s, k) y = MatMul(n, v)"),
        ),
        holds=(
            _example("n = Tanh(x) y = MatMul(n, odd)", "not filled", width=ODD),
            _example("n = Tanh(x) y = MatMul(n, narrow)", columns=4),
            _example(
                "n = Tanh(x) p = MatMul(n, w) q = MatMul(x, w) r = MatMul(q, w) y = Add(p, r)",
                "shared widely",
            ),
        ),
    )

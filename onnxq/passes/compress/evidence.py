"""Small models whose channels are copied, and some alike: the evidence of passes that merge channels."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.statistics import SecondMoments, Statistics, TensorStatistics

_WIDTH, _COPIES = 16, 2


def _weight(copied: bool, alike: bool) -> np.ndarray:
    """[18, 16]: the last two rows copies of the first, if any, and two pairs of rows nearly alike, if any."""
    weight = np.random.default_rng(7).normal(size=(_WIDTH + _COPIES, _WIDTH)).astype(np.float32)
    if copied:
        weight[_WIDTH:] = weight[0]
    if alike:
        weight[3] = weight[4] * 1.01
        weight[5] = weight[6] * 0.99
    return weight


def _seen(name: str = "n", alike: bool = True) -> Statistics:
    tokens = np.random.default_rng(8).normal(size=(64, _WIDTH + _COPIES))
    if alike:
        tokens[:, 3] = tokens[:, 4] * 1.01
        tokens[:, 5] = tokens[:, 6] * 0.99
    return Statistics({name: TensorStatistics(64, moments=SecondMoments.of(tokens))})


def _example(
    body: str, reason: str = "", statistics: Statistics | None = None, copied: bool = True, alike: bool = True
) -> Example:
    constants = {"w": _weight(copied, alike), "idx": np.array([*range(_WIDTH), 0, 0], np.int64)}
    constants["b"] = np.linspace(-1, 1, _WIDTH, dtype=np.float32)
    used = {name: each for name, each in constants.items() if f" {name})" in body or f" {name}," in body}
    kinds = {"float32": "float", "int64": "int64"}
    declared = ", ".join(
        f"{kinds[array.dtype.name]}[{','.join(map(str, array.shape))}] {name}" for name, array in used.items()
    )
    width = _WIDTH if "idx" in body else _WIDTH + _COPIES
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[B,N,{width}] x) => (float[B,N,{_WIDTH}] y) '
        f"<{declared}> {{ {body} }}"
    )
    return Example(text, reason, constants=used, statistics=statistics or _seen(alike=alike))


def assembly_examples() -> Examples:
    """For `AssembleChannels`."""
    body = "t = Tanh(x) n = Gather<axis = -1>(t, idx) y = MatMul(n, w)"
    return Examples(
        fires=(
            _example(body),
            _example("t = Tanh(x) n = Gather<axis = -1>(t, idx) m = MatMul(n, w) y = Add(m, b)"),
            _example("n = Tanh(x) m = MatMul(n, w) y = Add(m, b)"),
        ),
        holds=(
            _example("n = Tanh(x) y = MatMul(n, w)", "no channel of it was copied", copied=False),
            _example("n = Tanh(x) y = MatMul(n, w)", "would change the output", alike=False),
            _example("n = Tanh(x) y = MatMul(n, w)", "no second moments", _seen("elsewhere")),
        ),
    )

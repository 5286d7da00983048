"""Small models that prove the quantizing passes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.statistics import Statistics, TensorStatistics

_SIZE = 16
_STATISTICS = Statistics(
    {"x": TensorStatistics.of(np.linspace(-3.0, 5.0, 8 * _SIZE, dtype=np.float32).reshape(8, _SIZE))}
)


def _constants() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "w": draw.normal(size=(_SIZE, _SIZE)).astype(np.float32),
        "v": draw.normal(size=(_SIZE, _SIZE)).astype(np.float32),
        "b": draw.normal(size=_SIZE).astype(np.float32),
        "narrow": draw.normal(size=(_SIZE, 4)).astype(np.float32),
        "half": draw.normal(size=(_SIZE, _SIZE)).astype(np.float16),
        "table": draw.normal(size=(64, _SIZE)).astype(np.float32),
    }


def _example(
    body: str,
    used: str,
    inputs: str = "float[N,16] x",
    outputs: str = "float[N,16] y",
    reason: str = "",
    statistics: Statistics = _STATISTICS,
) -> Example:
    arrays = {name: array for name, array in _constants().items() if name in used.split()}
    kinds = {"float32": "float", "float16": "float16"}
    declared = ", ".join(
        f"{kinds[array.dtype.name]}[{','.join(map(str, array.shape))}] {name}"
        for name, array in arrays.items()
    )
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) <{declared}> {{ {body} }}'
    return Example(text, reason, constants=arrays, statistics=statistics)


def linear_examples() -> Examples:
    """For `QuantizeLinears`."""
    return Examples(
        fires=(
            *_products(),
            _example("m = MatMul(x, w) n = MatMul(x, v) y = Add(m, n)", "w v"),
        ),
        holds=(
            _example("y = MatMul(x, w)", "w", reason="no statistics", statistics=Statistics({})),
            *_unfit(),
        ),
    )


def block_examples() -> Examples:
    """For `QuantizeBlocks`."""
    return Examples(
        fires=(
            *_products(),
            _example("m = MatMul(x, w) n = MatMul(m, w) y = Add(m, n)", "w"),
            _example(
                "e = Gather(table, ids) t = Transpose<perm = [1, 0]>(table) y = MatMul(e, t)",
                "table",
                "int64[N] ids",
                "float[N,64] y",
            ),
        ),
        holds=(*_unfit(),),
    )


def _products() -> Iterator[Example]:
    """The spellings of a linear."""
    yield _example("y = MatMul(x, w)", "w")
    yield _example("m = MatMul(x, w) y = Add(b, m)", "w b", "float[B,N,16] x", "float[B,N,16] y")
    yield _example("y = Gemm<transB = 1, alpha = 0.5>(x, w, b)", "w b")


def _unfit() -> Iterator[Example]:
    """Linears that no integer product is for."""
    yield _example("y = MatMul(x, narrow)", "narrow", outputs="float[N,4] y", reason="too small")
    half = "float16[N,16]"
    yield _example("y = MatMul(x, half)", "half", f"{half} x", f"{half} y", reason="computes in float16")
    yield _example("y = MatMul(w, x)", "w", "float[16,N] x", "float[16,N] y", reason="on the left")


def embedding_examples() -> Examples:
    """For `QuantizeEmbeddings` (with its least size at the size of these tables)."""
    ids = "int64[N] ids"
    return Examples(
        fires=(
            _example("y = Gather(table, ids)", "table", ids),
            _example("y = Gather<axis = 0>(table, ids)", "table", "int64[B,N] ids", "float[B,N,16] y"),
            _example("e = Gather(table, ids) y = Tanh(e)", "table", ids),
        ),
        holds=(
            _example("y = Gather(table, ids)", "table", f"{ids}, float[64,16] table", reason="override"),
            _example("y = Gather<axis = 1>(table, ids)", "table", ids, "float[64,N] y"),
            _example("y = Gather(narrow, ids)", "narrow", ids, "float[N,4] y", reason="too small"),
        ),
    )

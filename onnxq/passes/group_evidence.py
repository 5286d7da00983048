"""Small models with streams of uneven channels: the evidence of the passes that order and group channels."""

from __future__ import annotations

import numpy as np

from onnxq.contract import Example, Examples
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics

_KINDS = {"float32": "float", "int64": "int64"}
_SHAPES: dict[str, tuple[int, ...]] = {
    "table": (11, 4),
    "gamma": (4,),
    "beta": (4,),
    "w": (4, 4),
    "b": (4,),
    "up": (4, 6),
    "down": (6, 4),
    "head": (4, 3),
    "patch": (4, 3, 2, 2),
    "class": (1, 1, 4),
    "wide": (40, 16),
    "other": (40, 24),
    "shift": (16,),
}


def _constants() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(size=shape).astype(np.float32) for name, shape in _SHAPES.items()}
    arrays |= {"eps": np.array(1e-5, np.float32)}
    integers = {"tokens": [1, 4, 4], "heads": [-1, 2, 2], "zero": [0], "two": [2], "last": [-1]}
    return arrays | {name: np.array(numbers, np.int64) for name, numbers in integers.items()}


def _example(
    body: str,
    used: str,
    inputs: str = "int64[N] ids",
    outputs: str = "float[N,4] y",
    reason: str = "",
    statistics: Statistics | None = None,
) -> Example:
    arrays = {name: array for name, array in _constants().items() if name in used.split()}
    declared = ", ".join(
        f"{_KINDS[array.dtype.name]}{list(array.shape) if array.ndim else ''} {name}"
        for name, array in arrays.items()
    )
    head = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs})'
    seen = statistics if statistics is not None else _seen([9.0, 1.0, 5.0, 0.5])
    return Example(f"{head} <{declared}> {{ {body} }}", reason, constants=arrays, statistics=seen)


def _seen(reach: list[float] | np.ndarray, name: str = "n") -> Statistics:
    high = np.asarray(reach, np.float64)
    return Statistics({name: TensorStatistics(count=1, channel=ChannelExtremes(-high / 2, high))})


_EMBED = "e = Gather(table, ids)"
_NORM = "n = LayerNormalization<axis = -1>(e, gamma, beta)"


def permutation_examples() -> Examples:
    """For `PermuteResidual`."""
    return Examples(fires=_ordered(), holds=_not_ordered())


def _ordered() -> tuple[Example, ...]:
    floats = "float[N,4] e"
    return (
        _example(f"{_EMBED} {_NORM} m = MatMul(n, w) a = Add(m, b) y = Add(a, n)", "table gamma beta w b"),
        _example(
            f"{_EMBED} {_NORM} h = MatMul(n, up) t = Tanh(h) d = Gemm(t, down, b) r = Add(e, d) "
            "q = LayerNormalization<axis = -1>(r, gamma) y = MatMul(q, head)",
            "table gamma beta up down b head",
            outputs="float[N,3] y",
        ),
        _example(
            "s = Mul(e, e) v = ReduceMean<axes = [-1], keepdims = 1>(s) u = Add(v, eps) r = Sqrt(u) "
            "d = Div(e, r) n = Mul(d, gamma) y = MatMul(n, w)",
            "gamma w eps",
            floats,
        ),
        _example(
            "c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, patch, b) f = Reshape(c, tokens) "
            "t = Transpose<perm = [0, 2, 1]>(f) e = Concat<axis = 1>(class, t) "
            f"{_NORM} y = MatMul(n, w)",
            "patch class gamma beta w b tokens",
            "float[1,3,4,4] x",
            "float[1,5,4] y",
        ),
        _example(
            f"{_EMBED} {_NORM} k = Transpose<perm = [1, 0]>(table) y = MatMul(n, k)",
            "table gamma beta",
            outputs="float[N,11] y",
        ),
    )


def _not_ordered() -> tuple[Example, ...]:
    return (
        _example(
            f"{_EMBED} {_NORM} y = Reshape(n, heads)",
            "table gamma beta heads",
            outputs="float[N,2,2] y",
            reason="divides the channels",
        ),
        _example(
            f"{_EMBED} {_NORM} y = Slice(n, zero, two, last)",
            "table gamma beta zero two last",
            outputs="float[N,2] y",
            reason="Slice picks channels",
        ),
        _example(
            f"{_EMBED} {_NORM} y = CumSum(n, last)",
            "table gamma beta last",
            reason="not known to let a permutation pass",
        ),
        _example(
            f"{_EMBED} {_NORM} y = MatMul(n, w)",
            "table gamma beta w",
            "int64[N] ids, float[4] gamma",
            reason="may override",
        ),
        _example(
            f"{_EMBED} {_NORM} y = MatMul(n, w)",
            "table gamma beta w",
            reason="no statistics",
            statistics=_seen([1.0], name="elsewhere"),
        ),
        _example(
            f"{_EMBED} {_NORM} y = MatMul(n, w)",
            "table gamma beta w",
            reason="in order already",
            statistics=_seen([1.0, 1.0, 2.0, 3.0]),
        ),
    )


def split_examples() -> Examples:
    """For `SplitGroups`."""
    reach = np.ones(40)
    even, towering = _seen(reach, "x"), _seen(np.append(reach[2:], [30.0, 50.0]), "x")
    deep, flat = ("float[B,N,40] x", "float[B,N,16] y"), ("float[N,40] x", "float[N,16] y")
    return Examples(
        fires=(
            _example("m = MatMul(x, wide) y = Add(m, shift)", "wide shift", *deep, statistics=towering),
            _example("y = Gemm<alpha = 0.5>(x, wide, shift)", "wide shift", *flat, statistics=towering),
            _example("y = MatMul(x, wide)", "wide", *flat, statistics=towering),
            _example(
                "p = MatMul(x, other) t = Tanh(p) q = MatMul(x, wide) y = Concat<axis = -1>(t, q)",
                "wide other",
                "float[N,40] x",
                "float[N,40] y",
                statistics=towering,
            ),
        ),
        holds=(
            _example("y = MatMul(x, wide)", "wide", *flat, statistics=even, reason="times only"),
            _example("y = MatMul(x, wide)", "wide", *flat, reason="no statistics"),
            _example(
                "y = MatMul(x, up)",
                "up",
                "float[N,4] x",
                "float[N,6] y",
                statistics=towering,
                reason="too small",
            ),
        ),
    )

"""Linear layers in each spelling."""

from __future__ import annotations

from tests.families.numbers import vectors, weights
from tests.families.writer import Writer


def linear(
    w: Writer,
    x: str,
    name: str,
    channels: int,
    columns: int,
    *,
    rank: int = 3,
    is_up: bool = False,
    tied: str = "",
) -> str:
    """``x W + b``.

    Args:
        w: The writer.
        x: Activations [..., K].
        name: What to call the layer.
        channels: K.
        columns: N.
        rank: Axes of `x`.
        is_up: Whether outliers of the hidden channels come from here.
        tied: A table [N, K] that is the weight, transposed.
    """
    with w.inside(name):
        bias = w.parameter("bias", vectors(columns)) if w.spec.bias else ""
        if tied:
            return _added(w, w.op("MatMul", x, w.op("Transpose", tied, perm=[1, 0])), bias)
        made = weights(w.spec, channels, columns, is_up=is_up)
        if w.spec.linear in ("gemm", "gemm-transposed", "flattened") and rank > 2:
            return _flattened(w, x, made, (channels, columns), bias)
        return _spelled(w, x, made, bias, flat=rank == 2)


def _spelled(w: Writer, x: str, made, bias: str, *, flat: bool) -> str:
    spelling = w.spec.linear
    if spelling in ("gemm-transposed", "transposed"):
        weight = w.parameter("weight", lambda random: made(random).T)
    elif spelling == "gemm":
        weight = w.parameter("weight", lambda random: 2 * made(random))
    else:
        weight = w.parameter("weight", made)
    if spelling in ("gemm", "gemm-transposed") and flat:
        inputs = [x, weight, bias] if bias else [x, weight]
        attributes = {"transB": 1} if spelling == "gemm-transposed" else {"alpha": 0.5}
        return w.op("Gemm", *inputs, **attributes)
    if spelling == "transposed":
        return _added(w, w.op("MatMul", x, w.op("Transpose", weight, perm=[1, 0])), bias)
    if spelling == "contrib":
        return _added(w, w.contrib("FusedMatMul", x, weight, alpha=1.0), bias)
    return _added(w, w.op("MatMul", x, weight), bias)


def _flattened(w: Writer, x: str, made, sizes: tuple[int, int], bias: str) -> str:
    """Tokens of all samples in one axis, as Gemm needs them and TensorFlow likes them."""
    channels, columns = sizes
    flat = w.op("Reshape", x, w.ints(-1, channels))
    if w.spec.linear == "flattened":
        product = w.op("MatMul", flat, w.parameter("weight", made))
        return _added(w, _restored(w, product, x, columns), bias)
    return _restored(w, _spelled(w, flat, made, bias, flat=True), x, columns)


def _restored(w: Writer, y: str, like: str, columns: int) -> str:
    if w.spec.sizes == "fixed":
        return w.op("Reshape", y, w.ints(w.spec.dims.batch, -1, columns))
    shape = w.op("Concat", w.size(like, 0), w.size(like, 1), w.ints(columns), axis=0)
    return w.op("Reshape", y, shape)


def _added(w: Writer, product: str, bias: str) -> str:
    if not bias:
        return product
    return w.op("Add", bias, product) if w.spec.linear == "bias-first" else w.op("Add", product, bias)

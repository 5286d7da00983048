"""Products of matrices, and convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as nn

from onnxq.learn.operators.call import Call, Rule, Tensor

_CONVOLUTIONS = {1: nn.conv1d, 2: nn.conv2d, 3: nn.conv3d}
_TRANSPOSED = {1: nn.conv_transpose1d, 2: nn.conv_transpose2d, 3: nn.conv_transpose3d}


def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Gemm."""
    a = a.T if call.integer("transA", 0) else a
    b = b.T if call.integer("transB", 0) else b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    product = a @ b if alpha == 1.0 else alpha * (a @ b)
    if c is None:
        return product
    return product + (c if beta == 1.0 else beta * c)


def convolve(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv over one to three axes, padded unevenly if need be."""
    axes = x.dim() - 2
    if axes not in _CONVOLUTIONS:
        raise call.refuse(f"over {axes} axes")
    strides = call.integers("strides") or [1] * axes
    dilations = call.integers("dilations") or [1] * axes
    extents = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)]
    wanted = [-(-size // stride) for size, stride in zip(x.shape[2:], strides, strict=True)]
    totals = [
        max((out - 1) * stride + extent - size, 0)
        for out, stride, extent, size in zip(wanted, strides, extents, x.shape[2:], strict=True)
    ]
    before, after = _padding(call, totals)
    x = _widened(x, before, after)
    return _CONVOLUTIONS[axes](x, weight, bias, strides, 0, dilations, call.integer("group", 1))


def convolve_transposed(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """ConvTranspose: everything that the kernel reaches, then cut to size, then the bias."""
    axes = x.dim() - 2
    if axes not in _TRANSPOSED:
        raise call.refuse(f"over {axes} axes")
    strides = call.integers("strides") or [1] * axes
    dilations = call.integers("dilations") or [1] * axes
    extra = call.integers("output_padding") or [0] * axes
    groups = call.integer("group", 1)
    y = _TRANSPOSED[axes](x, weight, None, strides, 0, 0, groups, dilations)
    full = [size + more for size, more in zip(y.shape[2:], extra, strict=True)]
    sizes = call.integers("output_shape")
    if sizes is None:
        sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        before, after = _padding(call, [a - b for a, b in zip(full, sizes, strict=True)])
    else:
        totals = [a - b for a, b in zip(full, sizes[-axes:], strict=True)]
        before, after = _halves(totals, call.text("auto_pad", "NOTSET") == "SAME_UPPER")
    y = _widened(y, [-each for each in before], [a - b for a, b in zip(extra, after, strict=True)])
    return y if bias is None else y + bias.reshape(-1, *[1] * axes)


def _padding(call: Call, same: Sequence[int]) -> tuple[list[int], list[int]]:
    """Padding before and after each axis; `same` is the total that ``SAME_*`` asks for."""
    mode = call.text("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return _halves(same, mode == "SAME_UPPER")
    pads = call.integers("pads") if mode == "NOTSET" else None
    pads = pads or [0] * 2 * len(same)
    return pads[: len(same)], pads[len(same) :]


def _halves(totals: Sequence[int], upper: bool) -> tuple[list[int], list[int]]:
    """Each total in two parts, the larger one behind if `upper`."""
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (small, large) if upper else (large, small)


def _widened(x: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Zeros put around the positions of `x`; negative widths cut."""
    if not any(before) and not any(after):
        return x
    widths = [width for pair in zip(before, after, strict=True) for width in reversed(pair)]
    return nn.pad(x, widths[::-1])


PRODUCTS: Mapping[str, Rule] = {
    "Conv": convolve,
    "ConvTranspose": convolve_transposed,
    "Einsum": lambda call, *inputs: torch.einsum(call.text("equation", ""), *inputs),
    "Gemm": gemm,
    "MatMul": lambda call, a, b: torch.matmul(a, b),
}

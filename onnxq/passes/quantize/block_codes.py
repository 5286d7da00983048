"""Weights in blocks: a scale for every `block` input channels of every column, codes packed for MatMulNBits.

The runtime's kernel rounds activations too, per row and per block, to signed 8 bits: `round_activations` does
the same, so that a planner can foretell the error of a layer without a session.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from onnxq.passes.quantize.rounding import Codes, Grid

BlockRange = Literal["minmax", "mse", "weighted"]
Floats = npt.NDArray[np.floating]
Bytes = npt.NDArray[np.uint8]

BLOCKS = (16, 32, 64, 128, 256)
"""Sizes of blocks that the runtime's kernels know."""
_COLUMNS = 4096
"""Columns worked on at once: bounds memory on the head of a language model."""
_SHRINKS = np.linspace(1.0, 0.4, 25)
_TOP = np.float32(127)


def block_grid(
    weight: Floats,
    bits: int,
    block: int,
    *,
    symmetric: bool,
    method: BlockRange = "minmax",
    importance: Floats | None = None,
) -> Grid:
    """The grid of each block of rows of each column.

    Args:
        weight: [K, N]; K need not be a multiple of the block.
        bits: 2, 4 or 8.
        block: Rows that share a scale.
        symmetric: Signed codes around zero, or codes with a zero point of their own for each block.
        method: "minmax" holds every number of a block; "mse" takes the ends in as far as that lowers the
            squared error of rounding and clipping together; "weighted" minds the importance of rows, too.
        importance: What the error of each row counts, [K]: the mean square of its activation.

    Returns:
        A grid with scale [ceil(K / block), N].
    """
    parts = [
        _grid_of(
            weight[:, start : start + _COLUMNS],
            block,
            bits,
            symmetric,
            method,
            importance,
        )
        for start in range(0, max(weight.shape[1], 1), _COLUMNS)
    ]
    scale = np.concatenate([scale for scale, _ in parts], axis=1)
    zero = None if symmetric else np.concatenate([zero for _, zero in parts], axis=1)
    return Grid(scale, zero, bits, block, whole=symmetric)


def pack_blocks(codes: Codes, grid: Grid) -> tuple[Bytes, npt.NDArray[np.float32], Bytes | None]:
    """What MatMulNBits reads: weights, scales and zero points, column after column.

    Args:
        codes: [K, N] on `grid`, signed around zero or with zero points.
        grid: Its blocks.

    Returns:
        Codes as bytes [N, blocks, block * bits / 8], the first of a byte in its low bits, blocks that K does
        not fill up filled with zeros of the weight; scales [N, blocks]; zero points as bytes
        [N, ceil(blocks * bits / 8)], or None for signed codes, which are stored as ``code + 2**(bits - 1)``.
    """
    blocks, columns = grid.scale.shape
    middle = 2 ** (grid.bits - 1)
    zero = np.full((blocks, columns), middle) if grid.zero_point is None else grid.zero_point
    shift = middle if grid.zero_point is None else 0
    padded = np.repeat(zero.astype(np.uint8).T, grid.group, axis=1)  # [N, blocks * block]
    padded[:, : len(codes)] = (codes.astype(np.int16) + shift).T
    weights = pack(padded, grid.bits).reshape(columns, blocks, -1)
    zeros = None if grid.zero_point is None else pack(grid.zero_point.astype(np.uint8).T, grid.bits)
    return weights, np.ascontiguousarray(grid.scale.T, np.float32), zeros


def pack(codes: Bytes, bits: int) -> Bytes:
    """Codes [N, n] of 2, 4 or 8 bits as bytes [N, ceil(n * bits / 8)], the first of a byte lowest."""
    each = 8 // bits
    filled = np.pad(codes, ((0, 0), (0, -codes.shape[1] % each))).reshape(len(codes), -1, each)
    packed = np.zeros(filled.shape[:2], np.uint8)
    for place in range(each):
        packed |= filled[:, :, place] << np.uint8(bits * place)
    return packed


def unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    """The first `count` codes of each row of bytes: the inverse of `pack`."""
    each, mask = 8 // bits, np.uint8(2**bits - 1)
    parts = [(packed >> np.uint8(bits * place)) & mask for place in range(each)]
    return np.stack(parts, axis=-1).reshape(len(packed), -1)[:, :count]


def round_activations(rows: Floats, block: int) -> npt.NDArray[np.float32]:
    """Activations [..., K] as the kernel rounds them: 8 bits around zero, a scale per row and block.

    It is Bondarenko's per-embedding-group quantization, with ranges found at run time instead of before.
    """
    channels = rows.shape[-1]
    flat = rows.reshape(-1, channels).astype(np.float32)
    cut = np.pad(flat, ((0, 0), (0, -channels % block))).reshape(len(flat), -1, block)
    scale = np.abs(cut).max(axis=-1, keepdims=True) / _TOP
    steps = np.divide(cut, scale, out=np.zeros_like(cut), where=scale > 0)
    values: npt.NDArray[np.float32] = (np.rint(steps) * scale).reshape(len(flat), -1)[:, :channels]
    return values.reshape(rows.shape)


def _grid_of(
    weight: Floats,
    block: int,
    bits: int,
    symmetric: bool,
    method: BlockRange,
    importance: Floats | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Scales and zero points [blocks, n] of some columns."""
    channels, columns = weight.shape
    fill = -channels % block
    cut = np.pad(np.asarray(weight, np.float32), ((0, fill), (0, 0))).reshape(-1, block, columns)
    low, high = np.minimum(cut.min(axis=1), 0), np.maximum(cut.max(axis=1), 0)
    fit = _symmetric if symmetric else _asymmetric
    best = fit(low, high, bits)
    if method == "minmax":
        return best
    given = method == "weighted" and importance is not None
    counts = np.asarray(importance) if given else np.ones(channels)
    weigh = np.pad(counts, (0, fill)).reshape(-1, block, 1).astype(np.float32)
    least = _error(cut, weigh, *best, bits)
    scale, zero = best
    for shrink in _SHRINKS[1:].astype(np.float32):
        tried = fit(low * shrink, high * shrink, bits)
        error = _error(cut, weigh, *tried, bits)
        better = error < least
        least = np.where(better, error, least)
        scale, zero = np.where(better, tried[0], scale), np.where(better, tried[1], zero)
    return scale, zero


def _symmetric(low: Floats, high: Floats, bits: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Codes reach one further down than up."""
    middle = 2 ** (bits - 1)
    scale = _usable(np.maximum(high / (middle - 1), -low / middle))
    return scale, np.full(scale.shape, middle, np.uint8)


def _asymmetric(
    low: Floats, high: Floats, bits: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    top = 2**bits - 1
    scale = _usable((high - low) / top)
    return scale, np.clip(np.rint(-low / scale), 0, top).astype(np.uint8)


def _usable(scale: Floats) -> npt.NDArray[np.float32]:
    """1 where all of a block is zero, or so small that runtimes flush its scale to zero."""
    return np.where(scale > np.finfo(np.float32).tiny, scale, 1).astype(np.float32)


def _error(
    cut: npt.NDArray[np.float32],
    weigh: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    zero: npt.NDArray[np.uint8],
    bits: int,
) -> npt.NDArray[np.float32]:
    """Weighed squared error of each block, [blocks, n]."""
    scale, shift = scale[:, None], zero.astype(np.float32)[:, None]
    steps = np.rint(cut / scale)
    np.clip(steps, -shift, 2**bits - 1 - shift, out=steps)
    steps *= scale
    steps -= cut
    np.square(steps, out=steps)
    steps *= weigh
    error: npt.NDArray[np.float32] = steps.sum(axis=1)
    return error

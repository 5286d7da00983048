"""A vision transformer: patches by a convolution, a class token in front, norms in front of the branches."""

from __future__ import annotations

import numpy as np

from tests.families.embeddings import finish
from tests.families.masks import Mask
from tests.families.numbers import vectors
from tests.families.pre_encoder import layers
from tests.families.writer import Writer

SIDE, PATCH, COLOURS = 8, 4, 3
GRID = SIDE // PATCH
TOKENS = GRID**2 + 1


def write(w: Writer) -> None:
    """pixels -> Conv -> [batch, patches, C] -> class token, positions -> layers -> norm (-> picture)."""
    width = w.spec.dims.width
    pixels = w.input("pixel_values", w.spec.float_type.type, [w.batch, COLOURS, SIDE, SIDE])
    with w.inside("patches"):
        kernel = w.parameter("kernel", vectors(width, COLOURS, PATCH, PATCH, size=0.15))
        bias = w.parameter("bias", vectors(width))
        grid = w.op("Conv", pixels, kernel, bias, kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
        patches = w.op("Transpose", _columns(w, grid), perm=[0, 2, 1])
        first = w.parameter("class", vectors(1, 1, width, size=1.0))
        x = w.op("Concat", w.op("Expand", first, _one_each(w, patches)), patches, axis=1)
        x = w.op("Add", x, w.parameter("positions", vectors(1, TOKENS, width, size=0.5)))
    states = layers(w, x, Mask())
    finish(w, states, TOKENS)
    if w.spec.head != "scores":
        heat = _heat(w, "states" if w.spec.head in ("states", "both") else states)
        w.output(heat, "heat", [w.batch, 1, 8 * GRID, 8 * GRID])


def _heat(w: Writer, states: str) -> str:
    """A picture of the patches, twice upsampled by transposed convolutions and once by interpolation."""
    width, columns = w.spec.dims.width, 8
    with w.inside("decoder"):
        patches = w.op("Slice", states, w.ints(1), w.ints(TOKENS), w.ints(1))
        picture = w.op("Reshape", w.op("Transpose", patches, perm=[0, 2, 1]), w.ints(-1, width, GRID, GRID))
        kernel = w.parameter("kernel1", vectors(width, columns, 4, 4, size=0.1))
        up = w.op("ConvTranspose", picture, kernel, strides=[2, 2], pads=[1, 1, 1, 1])
        numbers = (
            w.parameter(name, vectors(columns, size=0.2, around=middle))
            for name, middle in (("gamma", 1.0), ("beta", 0.0), ("mean", 0.0), ("variance", 1.5))
        )
        normed = w.op("Relu", w.op("BatchNormalization", up, *numbers))
        kernel = w.parameter("kernel2", vectors(columns, columns, 2, 2, size=0.3))
        up = w.op("ConvTranspose", normed, kernel, w.parameter("bias2", vectors(columns)), strides=[2, 2])
        last = w.op("Tanh", w.op("Transpose", up, perm=[0, 2, 3, 1]))
        up = w.op("Transpose", last, perm=[0, 3, 1, 2])
        scales = w.constant(np.array([1, 1, 2, 2], np.float32))
        up = w.op("Resize", up, "", scales, mode="linear")
        return w.op(
            "Conv", up, w.parameter("kernel3", vectors(1, columns, 1, 1)), w.parameter("bias3", vectors(1))
        )


def _columns(w: Writer, grid: str) -> str:
    """[batch, C, rows, columns] => [batch, C, patches]."""
    batch = w.spec.dims.batch if w.spec.sizes == "fixed" else 0
    if w.spec.sizes != "computed":
        return w.op("Reshape", grid, w.ints(batch, w.spec.dims.width, -1))
    shape = w.op("Concat", w.size(grid, 0), w.size(grid, 1), w.ints(-1), axis=0)
    return w.op("Reshape", grid, shape)


def _one_each(w: Writer, patches: str) -> str:
    if w.spec.sizes == "fixed":
        return w.ints(w.spec.dims.batch, 1, w.spec.dims.width)
    return w.op("Concat", w.size(patches, 0), w.constant(np.array([1, w.spec.dims.width])), axis=0)

"""A vision transformer: patches by a convolution, a class token in front, norms in front of the branches."""

from __future__ import annotations

import numpy as np

from tests.families.embeddings import finish
from tests.families.masks import Mask
from tests.families.numbers import vectors
from tests.families.pre_encoder import layers
from tests.families.writer import Writer

SIDE, PATCH, COLOURS = 8, 4, 3
TOKENS = (SIDE // PATCH) ** 2 + 1


def write(w: Writer) -> None:
    """pixels -> Conv -> [batch, patches, C] -> class token, positions -> layers -> norm."""
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
    finish(w, layers(w, x, Mask()), TOKENS)


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

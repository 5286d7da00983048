"""In and out of float64: weights are computed there and rounded once."""

from __future__ import annotations

import ml_dtypes
import numpy as np

_FLOATS = tuple(np.dtype(kind) for kind in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16))


def is_float(dtype: np.dtype) -> bool:
    """Whether arithmetic on weights is done in `dtype`: float32, float64, float16 or bfloat16."""
    return dtype in _FLOATS


def float_view(array: np.ndarray) -> np.ndarray:
    """`array` in a precision that numpy computes well in: 16-bit floats as float32, others as they are."""
    return array if array.dtype in _FLOATS[:2] else array.astype(np.float32)


def fits(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether every element of `array` is finite in `dtype`: a check for passes before they rewrite."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(dtype).astype(np.float64)).all())


def round_once(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`array` rounded to `dtype`.

    Raises:
        ValueError: An element is not finite in `dtype`, so that the model would compute infinities.
    """
    if not fits(array, dtype):
        raise ValueError(f"values up to {np.abs(array).max():g} do not fit into {dtype.name}")
    return array.astype(dtype)

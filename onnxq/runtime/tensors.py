"""Element types between the runtime, which names them its own way, and numpy, which lacks some of them."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import ml_dtypes
import numpy as np

_NUMPY = {
    "float": np.float32,
    "double": np.float64,
    "bool": np.bool_,
    **{
        name: getattr(np, name) for name in ("float16", "int8", "uint8", "int16", "uint16", "int32", "uint32")
    },
    "int64": np.int64,
    "uint64": np.uint64,
}
# What the runtime's numpy bridge refuses: its name, the type in ml_dtypes, the number in ONNX's TensorProto.
_FOREIGN = {
    "bfloat16": (ml_dtypes.bfloat16, 16),
    "float8e4m3fn": (ml_dtypes.float8_e4m3fn, 17),
    "float8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, 18),
    "float8e5m2": (ml_dtypes.float8_e5m2, 19),
    "float8e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, 20),
}


def element_of(kind: str) -> str:
    """The element type in the runtime's words, e.g. "float" of ``"tensor(float)"``; "" if it is no tensor."""
    found = re.fullmatch(r"(?:sparse_)?tensor\((\w+)\)", kind)
    return found[1] if found else ""


def plain(kind: str) -> bool:
    """Whether the runtime exchanges this type with numpy by itself."""
    return element_of(kind) not in _FOREIGN


def dtype_of(kind: str) -> np.dtype[Any]:
    """The numpy type for the runtime's type `kind`; object for strings and for what is no tensor."""
    element = element_of(kind)
    dtype: np.dtype[Any] = np.dtype(
        _FOREIGN[element][0] if element in _FOREIGN else _NUMPY.get(element, np.object_)
    )
    return dtype


def ort_value_of(array: Any, kind: str) -> Any:
    """An OrtValue of type `kind` that holds `array`."""
    import onnxruntime

    element = element_of(kind)
    if element not in _FOREIGN:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array))
    dtype, number = _FOREIGN[element]
    bits = np.ascontiguousarray(array, dtype).view(f"u{np.dtype(dtype).itemsize}")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, number)


def array_of(value: Any) -> Any:
    """The contents of an OrtValue as an array of its own."""
    element = element_of(value.data_type())
    if element not in _FOREIGN:
        return value.numpy() if value.is_tensor() else value
    dtype = np.dtype(_FOREIGN[element][0])
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype).reshape(shape)

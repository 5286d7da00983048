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
# What the runtime's numpy bridge refuses: the type in ml_dtypes, its number in ONNX's TensorProto, its bits.
_FOREIGN: dict[str, tuple[Any, int, int]] = {
    "bfloat16": (ml_dtypes.bfloat16, 16, 16),
    "float8e4m3fn": (ml_dtypes.float8_e4m3fn, 17, 8),
    "float8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, 18, 8),
    "float8e5m2": (ml_dtypes.float8_e5m2, 19, 8),
    "float8e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, 20, 8),
    "uint4": (ml_dtypes.uint4, 21, 4),
    "int4": (ml_dtypes.int4, 22, 4),
    "float8e8m0": (ml_dtypes.float8_e8m0fnu, 24, 8),
    "uint2": (ml_dtypes.uint2, 25, 2),
    "int2": (ml_dtypes.int2, 26, 2),
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
    foreign = _FOREIGN.get(element)
    dtype: np.dtype[Any] = np.dtype(foreign[0] if foreign else _NUMPY.get(element, np.object_))
    return dtype


def exchanged(array: Any) -> tuple[Any, int | None]:
    """`array` as the runtime takes it from numpy.

    Returns:
        The array; or, where the runtime's numpy bridge does not know its type, its bits as unsigned integers
        and the number that ONNX gives the type.
    """
    array = np.asarray(array)
    known = next((each for each in _FOREIGN.values() if np.dtype(each[0]) == array.dtype), None)
    if known is None:
        return array, None
    _, number, bits = known
    shape = array.shape
    data = np.ascontiguousarray(array).reshape(shape).view(f"u{array.dtype.itemsize}")
    if bits < 8:  # the runtime takes the shape from the buffer, and then reads only the packed front of it
        packed = _pack(data.reshape(-1), bits)
        data = np.concatenate([packed, np.zeros(data.size - packed.size, np.uint8)]).reshape(shape)
    return data, number


def ort_value_of(array: Any, kind: str) -> Any:
    """An OrtValue of type `kind` that holds `array`."""
    import onnxruntime

    foreign = _FOREIGN.get(element_of(kind))
    if foreign is None:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array))
    data, number = exchanged(np.asarray(array).astype(foreign[0], copy=False))
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(data, number)


def array_of(value: Any) -> Any:
    """The contents of an OrtValue as an array of its own."""
    foreign = _FOREIGN.get(element_of(value.data_type()))
    if foreign is None:
        return value.numpy() if value.is_tensor() else value
    dtype, _, bits = foreign
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    block = np.frombuffer(ctypes.string_at(value.data_ptr(), (count * bits + 7) // 8), np.uint8)
    if bits < 8:
        signed = np.dtype(dtype).name.startswith("int")
        return _unpack(block, count, bits, signed=signed).astype(dtype).reshape(shape)
    return block.view(dtype).reshape(shape)


def _pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Small integers, one a byte, as ONNX packs them: several a byte, the first in the lowest bits."""
    per_byte = 8 // bits
    padded = np.pad(values & ((1 << bits) - 1), (0, -len(values) % per_byte)).reshape(-1, per_byte)
    shifted = padded << (bits * np.arange(per_byte, dtype=np.uint8))
    packed: np.ndarray = np.bitwise_or.reduce(shifted, axis=1)
    return packed.astype(np.uint8)


def _unpack(block: np.ndarray, count: int, bits: int, *, signed: bool) -> np.ndarray:
    """The inverse of `_pack`: int8 or uint8 [count]."""
    shifts = bits * np.arange(8 // bits, dtype=np.uint8)
    values = ((block[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count].astype(np.int8)
    half = 1 << (bits - 1)
    return (values ^ half) - half if signed else values

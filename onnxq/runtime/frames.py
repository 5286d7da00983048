"""Messages between a worker and its parent: a JSON tree whose leaves may be arrays, and the arrays' bytes.

A frame is the length of its JSON text (8 bytes, little endian), the text, then one array after the other.
Nothing in it is ever executed, unlike a pickle.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

import ml_dtypes
import numpy as np

_LENGTH = struct.Struct("<Q")
_LARGEST_TEXT = 1 << 30
_ALIGNMENT = 64


def write_frame(stream: IO[bytes], tree: Any) -> None:
    """Write one message.

    Args:
        stream: Where to.
        tree: None, bools, numbers, strings, bytes, arrays, and lists, tuples and dicts of them.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_pack(tree, arrays)).encode()
    stream.write(_LENGTH.pack(len(text)))
    stream.write(text)
    for array in arrays:
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """The next message; tuples come back as lists.

    Raises:
        EOFError: The stream ended, inside a message or before it.
        ValueError: The bytes are no message.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    if length > _LARGEST_TEXT:
        raise ValueError(f"a message of {length} bytes of text")
    return _unpack(json.loads(_read(stream, length)), stream)


def _pack(value: Any, arrays: list[np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_pack(item, arrays) for item in value]
    if isinstance(value, dict):
        return {"dict": [[_pack(key, arrays), _pack(item, arrays)] for key, item in value.items()]}
    if isinstance(value, bytes):
        arrays.append(np.frombuffer(value, np.uint8))
        return {"bytes": len(value)}
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"a {type(value).__name__} cannot be sent to a worker")
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        return {"strings": [str(item) for item in array.reshape(-1)], "shape": list(array.shape)}
    arrays.append(np.ascontiguousarray(array))
    return {"array": array.dtype.name, "shape": list(array.shape)}


def _unpack(value: Any, stream: IO[bytes]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, stream) for item in value]
    if not isinstance(value, dict):
        return value
    if "dict" in value:
        return {_unpack(key, stream): _unpack(item, stream) for key, item in value["dict"]}
    if "bytes" in value:
        return bytes(_read(stream, value["bytes"]))
    if "strings" in value:
        return np.array(value["strings"], dtype=object).reshape(value["shape"])
    dtype = _dtype_named(value["array"])
    size = int(np.prod(value["shape"], dtype=np.int64)) * dtype.itemsize
    block = _aligned(size)
    _fill(stream, block.data)
    return block.view(dtype).reshape(value["shape"])


def _dtype_named(name: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)
    return dtype


def _aligned(size: int) -> np.ndarray:
    """Bytes [size] that start where the runtime's own buffers may: what sums them can depend on that."""
    block = np.empty(size + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + size]


def _read(stream: IO[bytes], size: int) -> bytearray:
    """Exactly `size` bytes."""
    block = bytearray(size)
    _fill(stream, memoryview(block))
    return block


def _fill(stream: IO[bytes], view: memoryview) -> None:
    """Read exactly as many bytes as there is room for."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"the stream ended {len(view) - filled} bytes early")
        filled += count

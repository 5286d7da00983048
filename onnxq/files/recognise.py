"""What a file is, told from its first bytes and its outermost structure, without reading it whole."""

from __future__ import annotations

import difflib
import enum
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from onnxq.errors import NotAModel


class FileKind(enum.Enum):
    """What a file turned out to be. The value is the slug of the error that `load` raises for it."""

    ONNX = "onnx"
    MISSING = "missing"
    DIRECTORY = "directory"
    NOT_A_FILE = "not-a-file"
    UNREADABLE = "unreadable"
    EMPTY = "empty-file"
    LFS_POINTER = "lfs-pointer"
    HTML = "html"
    XML = "xml"
    JSON = "json"
    ONNX_TEXT = "onnx-text"
    TORCH = "torch-file"
    PICKLE = "pickle"
    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    TFLITE = "tflite"
    ORT = "ort-format"
    HDF5 = "hdf5"
    NUMPY = "numpy"
    ARCHIVE = "archive"
    TRUNCATED = "truncated"
    CONCATENATED = "concatenated"
    NO_GRAPH = "no-graph"
    UNKNOWN = "wrong-format"


_EXPORT = "Export the model to ONNX first, for example with torch.onnx.export(..., dynamo=True)."
_COPY_AGAIN = "Copy or download it again and compare sizes."

_EXPLANATIONS: dict[FileKind, tuple[str, str]] = {
    FileKind.MISSING: ("does not exist", "Check the spelling of the path."),
    FileKind.DIRECTORY: ("is a directory", "Name the .onnx file inside it."),
    FileKind.NOT_A_FILE: ("is a pipe, a socket or a device", "Write the model to a regular file first."),
    FileKind.UNREADABLE: ("cannot be read", "Check its permissions and the disk."),
    FileKind.EMPTY: ("is empty", f"An export or a download stopped before its first byte. {_COPY_AGAIN}"),
    FileKind.LFS_POINTER: (
        "is a git-LFS pointer, not the model it points to",
        "Run `git lfs install` and `git lfs pull` in that repository.",
    ),
    FileKind.HTML: (
        "is a web page",
        "The download gave a login or error page: use the link to the raw file, or log in first.",
    ),
    FileKind.XML: (
        "is an XML file",
        "If it is OpenVINO IR, start from the ONNX model it was converted from.",
    ),
    FileKind.JSON: ("is a JSON file", "Name the .onnx file beside it."),
    FileKind.ONNX_TEXT: (
        "is a model written as text",
        "Convert it: onnx.parser.parse_model (or google.protobuf.text_format), then SerializeToString.",
    ),
    FileKind.TORCH: ("is a PyTorch checkpoint", _EXPORT),
    FileKind.PICKLE: ("is a Python pickle, which onnxq never opens", _EXPORT),
    FileKind.SAFETENSORS: ("holds weights alone (safetensors)", _EXPORT),
    FileKind.GGUF: ("is a GGUF model", _EXPORT),
    FileKind.TFLITE: ("is a TensorFlow Lite model", "Convert it to ONNX first, for example with tf2onnx."),
    FileKind.ORT: ("is a model in ONNX Runtime's own format", "Start from the .onnx file it was made from."),
    FileKind.HDF5: ("is an HDF5 file", "If it is a Keras model, convert it to ONNX first with tf2onnx."),
    FileKind.NUMPY: ("is a NumPy array", "Give arrays as calibration data and the .onnx file as the model."),
    FileKind.ARCHIVE: ("is an archive", "Unpack it and name the .onnx file inside."),
    FileKind.TRUNCATED: (
        "is an ONNX model that ends too early",
        f"{_COPY_AGAIN} An export may have run out of disk.",
    ),
    FileKind.CONCATENATED: (
        "holds more than one model",
        "Files were appended to one another. Use one of them.",
    ),
    FileKind.NO_GRAPH: (
        "has no graph",
        "It may be a single tensor or graph, or cut short. Name the whole model.",
    ),
    FileKind.UNKNOWN: (
        "is not an ONNX model",
        "Check that the file is a protobuf .onnx file and is not damaged.",
    ),
}

_HEAD = 4096

_LFS_MAGIC = b"version https://git-lfs"

_MAGIC: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, _LFS_MAGIC, FileKind.LFS_POINTER),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", FileKind.TORCH),
    (0, b"GGUF", FileKind.GGUF),
    (4, b"TFL3", FileKind.TFLITE),
    (4, b"ORTM", FileKind.ORT),
    (0, b"\x89HDF\r\n\x1a\n", FileKind.HDF5),
    (0, b"\x93NUMPY", FileKind.NUMPY),
    (0, b"PK\x03\x04", FileKind.ARCHIVE),
    (0, b"PK\x05\x06", FileKind.ARCHIVE),
    (0, b"\x1f\x8b", FileKind.ARCHIVE),
    (0, b"BZh", FileKind.ARCHIVE),
    (0, b"\xfd7zXZ\x00", FileKind.ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", FileKind.ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", FileKind.ARCHIVE),
    (0, b"Rar!\x1a\x07", FileKind.ARCHIVE),
    (257, b"ustar", FileKind.ARCHIVE),
)

_PATTERNS: tuple[tuple[re.Pattern[bytes], FileKind], ...] = (
    (re.compile(rb"\x80[\x02-\x05]"), FileKind.PICKLE),
    (re.compile(rb"<!doctype html|<html|<head|<body", re.IGNORECASE), FileKind.HTML),
    (re.compile(rb"<\?xml|<net\b"), FileKind.XML),
    (
        re.compile(rb"<\s*(ir_version|opset_import)\b|(ir_version|producer_name|graph)\s*[:{]"),
        FileKind.ONNX_TEXT,
    ),
    (re.compile(rb"\{\s*[\"}]|\[\s*[\[{\"\d\]]"), FileKind.JSON),
)


def recognise(path: str | os.PathLike[str]) -> FileKind:
    """What the file at `path` is. Reads its head and the outline of its protobuf, never the weights.

    A file that is damaged inside its graph is still `FileKind.ONNX`: its outline is whole.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return FileKind.DIRECTORY
        if not stat.S_ISREG(mode):
            return FileKind.NOT_A_FILE
        with open(path, "rb") as file:
            return _kind_of(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL inside the path
        return FileKind.MISSING
    except OSError:
        return FileKind.UNREADABLE


def not_a_model(path: Path, kind: FileKind) -> NotAModel:
    """The error for a file that is of another `kind` than ONNX, with the likely way out."""
    what, hint = _EXPLANATIONS[kind]
    if names := _suggestions(path, kind):
        hint = f"Did you mean {' or '.join(names)}?"
    return NotAModel(f"{path} {what}", hint=hint, slug=kind.value)


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that begins with `head` is a git-LFS pointer."""
    return head.startswith(_LFS_MAGIC)


def _suggestions(path: Path, kind: FileKind) -> list[str]:
    """Up to three models that the user may have meant."""
    if kind is FileKind.DIRECTORY:
        return sorted(str(model) for model in path.glob("*.onnx"))[:3]
    if kind is FileKind.MISSING and path.parent.is_dir():
        names = [model.name for model in path.parent.glob("*.onnx")]
        return [str(path.parent / name) for name in difflib.get_close_matches(path.name, names)]
    return []


def _kind_of(file: BinaryIO) -> FileKind:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        return FileKind.EMPTY
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return FileKind.TORCH if kind is FileKind.ARCHIVE and b"/data.pkl" in head else kind
    if _is_safetensors(head, size):
        return FileKind.SAFETENSORS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, kind in _PATTERNS:
        if pattern.match(text):
            return kind
    return _outline(file, size)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Eight bytes of header length, then a JSON object of that length."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT = 10
_MAX_FIELDS = 1_000_000

_IR_VERSION, _GRAPH = 1, 7
_MODEL_FIELDS = {
    _IR_VERSION: _VARINT,
    2: _LENGTH,  # producer_name
    3: _LENGTH,  # producer_version
    4: _LENGTH,  # domain
    5: _VARINT,  # model_version
    6: _LENGTH,  # doc_string
    _GRAPH: _LENGTH,
    8: _LENGTH,  # opset_import
    14: _LENGTH,  # metadata_props
    20: _LENGTH,  # training_info
    25: _LENGTH,  # functions
    26: _LENGTH,  # configuration
}


def _outline(file: BinaryIO, size: int) -> FileKind:
    """Judge a protobuf by its outermost fields alone: their numbers, types and lengths.

    A model has one graph. The graph and every other part carry their length in front, so that a file that was
    cut anywhere but between two parts is known by a part that reaches beyond its end.
    """
    seen: Counter[int] = Counter()
    try:
        for number, wire_type, end in _fields(file, size):
            if _MODEL_FIELDS.get(number) != wire_type and (number in _MODEL_FIELDS or not seen[_GRAPH]):
                return FileKind.UNKNOWN
            if end > size:
                return FileKind.TRUNCATED if seen or number == _GRAPH else FileKind.UNKNOWN
            seen[number] += 1
            if seen.total() > _MAX_FIELDS:
                return FileKind.UNKNOWN
    except EOFError:
        return FileKind.TRUNCATED if seen else FileKind.UNKNOWN
    except ValueError:
        return FileKind.UNKNOWN
    if seen[_GRAPH] > 1 or seen[_IR_VERSION] > 1:
        return FileKind.CONCATENATED
    return FileKind.ONNX if seen[_GRAPH] else FileKind.NO_GRAPH


def _fields(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Number, wire type and end of every outermost field; the last end may lie beyond `size`."""
    position = 0
    while position < size:
        file.seek(position)
        tag = _varint(file)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _LENGTH:
            length = _varint(file)
        elif wire_type == _VARINT:
            _varint(file)
            length = 0
        else:
            length = _FIXED_SIZES.get(wire_type, -1)
        if number == 0 or length < 0:
            raise ValueError("not a protobuf field")
        position = file.tell() + length
        yield number, wire_type, position


def _varint(file: BinaryIO) -> int:
    """The next base-128 number of `file`."""
    value = 0
    for index in range(_MAX_VARINT):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value
    raise ValueError("a varint of more than ten bytes")

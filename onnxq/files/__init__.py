"""The only door to disk: what a file is, models read with suspicion, models written whole."""

from onnxq.files.fingerprint import fingerprint
from onnxq.files.limits import Limits
from onnxq.files.load import from_proto, load
from onnxq.files.parts import Parts, read_parts
from onnxq.files.recognise import FileKind, recognise
from onnxq.files.save import save, to_bytes

__all__ = [
    "FileKind",
    "Limits",
    "Parts",
    "fingerprint",
    "from_proto",
    "load",
    "read_parts",
    "recognise",
    "save",
    "to_bytes",
]

"""Bringing a model to the runtime: as bytes where they fit in one message, else as a file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from onnxq import files
from onnxq.errors import UsageProblem

# A protobuf message ends at 2 GiB; 1.5 leaves room for the graph.
LARGEST_MESSAGE = 3 << 29


def deliver(model: ir.Model | Path | str | bytes) -> tuple[str | bytes, Path | None]:
    """The model in a form that the runtime takes: bytes, or a path.

    Returns:
        The bytes or path, and the folder to `discard` when the session is gone (None if there is none).
    """
    if isinstance(model, bytes):
        return model, None
    if not isinstance(model, ir.Model):
        return str(model), None
    if weight_bytes(model) < LARGEST_MESSAGE:
        return files.to_bytes(model), None
    folder = Path(tempfile.mkdtemp(prefix="onnxq-"))
    try:
        files.save(model, folder / "model.onnx", external=True)
    except BaseException:
        discard(folder)
        raise
    return str(folder / "model.onnx"), folder


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers of a model."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def read(source: Path | str | bytes) -> ir.Model:
    """The model of a file, or of the bytes of one."""
    if not isinstance(source, bytes):
        return files.load(source)
    import onnx

    return files.from_proto(onnx.ModelProto.FromString(source))


def with_taps(model: ir.Model, taps: Sequence[str]) -> ir.Model:
    """A copy of the model, weights shared, whose main graph also gives the values named in `taps`."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs if value.name}
    outputs = {value.name for value in copy.graph.outputs}
    for name in dict.fromkeys(taps):
        if name not in values:
            raise UsageProblem(
                f"no value named {name!r} is computed in the model's main graph", slug="unknown-value"
            )
        if name not in outputs:
            copy.graph.outputs.append(values[name])
    return copy


def discard(folder: Path | None) -> None:
    """Remove a folder that `deliver` made."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)

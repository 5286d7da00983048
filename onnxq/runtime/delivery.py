"""Bringing a model to the runtime: as bytes where they fit in one message, else as a file.

A session can also be given the graph alone, and the weights where they lie: they are then not written into a
message and parsed out of it again, which for a large model is most of the time and half of the memory that
opening it takes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq import files
from onnxq.errors import UsageProblem
from onnxq.runtime.settings import SessionSettings

# A protobuf message ends at 2 GiB; 1.5 leaves room for the graph.
LARGEST_MESSAGE = 3 << 29

SMALLEST_DETACHED = 1 << 24
# What is smaller may be read by shape inference, which sees nothing that is not in the bytes.
SMALLEST_WEIGHT = 1 << 16
_PLAIN = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    }
)


@dataclass(frozen=True)
class Parcel:
    """A model as the runtime takes it.

    Attributes:
        source: Its bytes, or its path.
        weights: Initializers that the bytes were left without, by name.
        folder: What to `discard` when the session is gone; None if there is nothing.
    """

    source: str | bytes
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    folder: Path | None = None


def pack(model: ir.Model | Path | str | bytes, settings: SessionSettings) -> Parcel:
    """The model in the form that is opened with the least copying, with its taps among the outputs.

    Raises:
        UsageProblem: A tap names no value of the model.
    """
    if settings.taps:
        model = with_taps(model if isinstance(model, ir.Model) else read(model), settings.taps)
    # A graph that the runtime writes to a file must have its weights with it.
    beside = detach(model) if isinstance(model, ir.Model) and settings.optimized_to is None else None
    if beside is not None:
        return Parcel(beside.graph, beside.arrays)
    source, folder = deliver(model)
    return Parcel(source, folder=folder)


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


@dataclass(frozen=True)
class Detached:
    """A graph in bytes, and the weights that it was left without, by name."""

    graph: bytes
    arrays: dict[str, np.ndarray]


def detach(model: ir.Model) -> Detached | None:
    """The model as its graph and its large weights; None if copying the weights is no matter.

    Only weights of the main graph in element types that numpy knows are left out.
    """
    if weight_bytes(model) < SMALLEST_DETACHED:
        return None
    copy, arrays = model.clone(), {}
    for name, value in copy.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < SMALLEST_WEIGHT or tensor.dtype not in _PLAIN:
            continue
        if value.is_graph_input():  # a default, which the runtime does not look for outside of the graph
            continue
        arrays[name] = np.ascontiguousarray(tensor.numpy())
        shape = ir.Shape(tensor.shape.numpy())
        value.const_value = ir.ExternalTensor(
            "weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name
        )
    if weight_bytes(model) - sum(array.nbytes for array in arrays.values()) >= LARGEST_MESSAGE:
        return None
    return Detached(bytes(ir.serde.serialize_model(copy).SerializeToString()), arrays)


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

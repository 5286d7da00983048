"""Reading a model: recognised, judged, and only then built."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxq.errors import InvalidModel, NotAModel, UnsupportedModel
from onnxq.files.external import Bytes, DataFolder, Reference
from onnxq.files.limits import DEFAULT_LIMITS, Limits
from onnxq.files.recognise import FileKind, not_a_model, recognise
from onnxq.files.tensors import Site, sites, with_labels_of
from onnxq.files.validate import check_model


def load(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> ir.Model:
    """Read a model and map its external data.

    All tensors of the result are in memory or mapped from files that are open already, so that it does not
    care what later happens to the names of those files. Mapped or not, they are read-only.

    Args:
        path: An ``.onnx`` file. A link is followed; external data is looked for where the file really is, or
            in the snapshot folder of a Hugging Face cache.
        limits: Bounds on what the model may ask of the machine.

    Raises:
        NotAModel: The file is something else; the slug is the value of its `FileKind`.
        UnsafeModel: The model asks for a file outside its folder or for more than `limits`.
        InvalidModel: The model contradicts itself.
        UnsupportedModel: The model has something that could not be kept.
    """
    path = Path(path)
    proto = read_proto(path, limits)[1]  # the bytes are let go of
    return _build(proto, DataFolder(path), limits)


def read_proto(path: Path, limits: Limits) -> tuple[bytes, onnx.ModelProto]:
    """The bytes of a model's file, and what they say before anything of it is checked.

    Raises:
        NotAModel: The file is something else, or damaged.
        UnsafeModel: It is larger than `limits` allow.
    """
    kind = recognise(path)
    if kind is not FileKind.ONNX:
        raise not_a_model(path, kind)
    try:
        limits.check("max_file_bytes", path.stat().st_size, str(path))
        content = path.read_bytes()
        return content, onnx.ModelProto.FromString(content)
    except OSError as error:
        raise not_a_model(path, FileKind.UNREADABLE) from error
    except DecodeError as error:
        hint = "Copy or download it again. (Graphs nested deeper than protobuf allows look the same.)"
        raise NotAModel(f"{path} is damaged inside its graph", hint=hint, slug="corrupt") from error


def from_proto(
    proto: onnx.ModelProto, *, path: str | os.PathLike[str] | None = None, limits: Limits = DEFAULT_LIMITS
) -> ir.Model:
    """Build a model from a message in memory, which is judged like a file and shares nothing with the result.

    Args:
        proto: The model.
        path: File the message was read from, if it has external data that lies beside it.
        limits: Bounds on what the model may ask of the machine.

    Raises:
        UnsafeModel, InvalidModel, UnsupportedModel: As `load`.
    """
    return _build(proto, DataFolder(Path(path) if path is not None else None), limits)


def _build(proto: onnx.ModelProto, folder: DataFolder, limits: Limits) -> ir.Model:
    check_model(proto, folder, limits)
    try:
        model = ir.serde.deserialize_model(proto)
        _complete(model, proto)
    except ir.serde.SerdeError as error:
        raise _refusal(error) from error
    for site in list(sites(model)):
        site.keep(_settle(site, folder))
    return model


def _complete(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Add what the graph library leaves out: one name for the default operators, types of function inputs."""
    for imports in (model.opset_imports, *(body.opset_imports for body in model.functions.values())):
        if "ai.onnx" in imports:
            imports[""] = imports.pop("ai.onnx")
    for function, body in zip(proto.functions, model.functions.values(), strict=True):
        described = {info.name: info for info in function.value_info}
        for value in body.inputs:
            if value.name in described:
                ir.serde.deserialize_value_info_proto(described[value.name], value)


def _refusal(error: ir.serde.SerdeError) -> InvalidModel | UnsupportedModel:
    """The deepest cause of an error of the graph library, which wraps it once per level."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, NotImplementedError):
        return UnsupportedModel(f"the model cannot be kept whole: {cause}", slug="not-implemented")
    return InvalidModel(f"the model is not valid: {cause}", slug="invalid-graph")


def _settle(site: Site, folder: DataFolder) -> ir.TensorProtocol:
    """The tensor of a site as an array of its own that needs neither the message nor a file name."""
    tensor = site.tensor
    if isinstance(tensor, ir.ExternalTensor):
        data = folder.read(Reference(site.where, str(tensor.location), tensor.offset or 0, tensor.nbytes))
    elif isinstance(tensor, ir.serde.TensorProtoTensor):
        data = _inline(tensor, site.where)
    else:
        return _strings(tensor, site.where)
    if tensor.dtype.bitwidth < 8:
        packed = ir.PackedTensor(data, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)
        return with_labels_of(tensor, packed)
    array = data.view(tensor.dtype.numpy().newbyteorder("<")).reshape(tensor.shape.numpy())
    return with_labels_of(tensor, ir.Tensor(array, tensor.dtype, name=tensor.name))


def _inline(tensor: ir.serde.TensorProtoTensor, where: str) -> Bytes:
    """The bytes that a message holds, if they are as many as its dimensions ask for."""
    proto = tensor.raw
    if proto.HasField("raw_data"):
        data = proto.raw_data
    else:
        found = {name for name in _FIELDS.values() if len(getattr(proto, name))}
        data = tensor.tobytes() if found == {_FIELDS[tensor.dtype]} else b""
    if len(data) != tensor.nbytes:
        raise InvalidModel(
            f"{where} has {len(data):,} bytes where its dimensions {list(proto.dims)} need {tensor.nbytes:,}",
            slug="data-size",
        )
    return np.frombuffer(data, np.uint8)


_FIELDS = dict.fromkeys(ir.DataType, "int32_data") | {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT64: "uint64_data",
    ir.DataType.UINT32: "uint64_data",
}
"""The field that holds the numbers of each type where there is no `raw_data`."""


def _strings(tensor: ir.TensorProtocol, where: str) -> ir.TensorProtocol:
    """A string tensor, which owns its strings already."""
    if isinstance(tensor, ir.StringTensor) and len(tensor.string_data()) != tensor.size:
        raise InvalidModel(
            f"{where} has {len(tensor.string_data()):,} strings where its dimensions need {tensor.size:,}",
            slug="data-size",
        )
    return tensor

"""One way in for models, whatever holds them."""

from __future__ import annotations

import os
from typing import Any

import onnx_ir as ir

from onnxq.errors import UsageProblem
from onnxq.interop.graphsurgeon import from_graphsurgeon, is_graphsurgeon
from onnxq.interop.torch_program import from_torch_program, is_torch_program

Acceptable = Any
"""A path, a `ModelProto` or its bytes, an `onnx_ir.Model`, a torch `ONNXProgram`, a graphsurgeon `Graph`."""


def as_model(thing: Acceptable) -> ir.Model:
    """`thing` as a model in memory.

    A `ModelProto` or its bytes are judged like a file, and shared with nobody afterwards. An
    `onnx_ir.Model`, also the one inside a torch program, is taken as it is: passes work on copies of it.

    Args:
        thing: See `Acceptable`.

    Raises:
        UsageProblem: It is something else.
        OnnxqError: It is one of these and no model onnxq can take; see `onnxq.files.load` and the converters.
    """
    if isinstance(thing, ir.Model):
        return thing
    if isinstance(thing, str | os.PathLike):
        from onnxq.files import load

        return load(thing)
    if isinstance(thing, bytes | bytearray | memoryview):
        return _from_bytes(bytes(thing))
    if is_torch_program(thing):
        return from_torch_program(thing)
    if is_graphsurgeon(thing):
        return from_graphsurgeon(thing)
    if _is_proto(thing):
        from onnxq.files import from_proto

        return from_proto(thing)
    raise UsageProblem(
        f"cannot make a model of {type(thing).__module__}.{type(thing).__qualname__}",
        hint="Give a path, an onnx.ModelProto or its bytes, an onnx_ir.Model, an onnx_graphsurgeon.Graph, or"
        " what torch.onnx.export(dynamo=True) returns.",
        slug="not-a-model-object",
    )


def _is_proto(thing: object) -> bool:
    import onnx

    return isinstance(thing, onnx.ModelProto)


def _from_bytes(data: bytes) -> ir.Model:
    import onnx
    from google.protobuf.message import DecodeError

    from onnxq.errors import NotAModel
    from onnxq.files import from_proto

    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise NotAModel("the bytes are no ONNX model, or a damaged one", slug="corrupt") from error
    return from_proto(proto)

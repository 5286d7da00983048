"""What must hold for every message of a model, whatever it means: text is text, and nothing is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import onnx
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from onnxq.errors import InvalidModel, UnsupportedModel

_CONTENT = {
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    onnx.AttributeProto.TYPE_PROTO: "tp",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.STRINGS: "strings",
    onnx.AttributeProto.TENSORS: "tensors",
    onnx.AttributeProto.GRAPHS: "graphs",
    onnx.AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    onnx.AttributeProto.TYPE_PROTOS: "type_protos",
}
_NEVER_ABSENT = frozenset({"t", "g", "tp", "sparse_tensor"})
_LABELS = frozenset({"name", "doc_string", "type", "ref_attr_name"})


def check_messages(message: Message, where: str = "model") -> None:
    """Refuse what a rebuilt message would lose or could not hold, in `message` and all messages inside it.

    Args:
        message: A model or a part of one. Its weights are not touched.
        where: Its place, for messages to the user.

    Raises:
        UnsupportedModel: A field that this version of onnx does not know.
        InvalidModel: Text that is not UTF-8, metadata given twice, an attribute whose content is not of its
            type.
    """
    if len(UnknownFieldSet(message)):
        raise UnsupportedModel(
            f"{_place(message, where)} has fields of a newer ONNX, which would be lost",
            hint="Upgrade: pip install --upgrade onnx.",
            slug="unknown-field",
        )
    if isinstance(message, onnx.AttributeProto):
        _check_attribute(message, where)
    for name, content in _fields(message):
        if isinstance(content, bytes):
            raise InvalidModel(f"{where}: its {name} is not UTF-8 text: {content[:40]!r}", slug="not-text")
        if isinstance(content, Message):
            check_messages(content, f"{where}.{name}")
    keys = [entry.key for entry in getattr(message, "metadata_props", ())]
    if len(set(keys)) < len(keys):
        raise InvalidModel(
            f"{_place(message, where)}: a key of its metadata is given twice: {sorted(keys)}",
            slug="duplicate-metadata",
        )


def _place(message: Message, where: str) -> str:
    name = getattr(message, "name", "")
    return f"{where} {name!r}" if name else where


def _fields(message: Message) -> Iterator[tuple[str, Any]]:
    """Every text and every message directly inside `message`; text that is not UTF-8 comes as bytes."""
    for name, repeated in _names(message.DESCRIPTOR):
        if repeated:
            for content in getattr(message, name):
                yield name, content
        elif message.HasField(name):
            yield name, getattr(message, name)


@cache
def _names(descriptor: Any) -> tuple[tuple[str, bool], ...]:
    """Fields of text and of messages, and whether each is repeated."""
    return tuple(
        (field.name, bool(field.is_repeated))
        for field in descriptor.fields
        if field.type in (field.TYPE_STRING, field.TYPE_MESSAGE)
    )


def _check_attribute(attribute: onnx.AttributeProto, where: str) -> None:
    """An attribute says what type it has, and has that content and no other."""
    if attribute.type not in _CONTENT:
        raise InvalidModel(f"{where} {attribute.name!r} has no type", slug="untyped-attribute")
    expected = _CONTENT[attribute.type]
    found = {field.name for field, _ in attribute.ListFields()} - _LABELS
    wanted = set() if attribute.ref_attr_name else {expected}
    if found - wanted or (wanted & _NEVER_ABSENT) - found:
        raise InvalidModel(
            f"{where} {attribute.name!r} has content {sorted(found)} where its type needs {expected!r}",
            slug="attribute-content",
        )

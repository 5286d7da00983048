"""Models with random fields changed: refused with an error of ours, or loaded and saved the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from google.protobuf.message import Message

from onnxq.errors import OnnxqError
from onnxq.files import fingerprint, from_proto, to_bytes
from tests.files.models import linear_proto
from tests.files.test_round_trip import PROBES
from tests.security.attacks import PLACES, SECRET, Attack, evil_tensor

NUMBERS = (0, 1, -1, 2, 7, 16, 99, 2**31 - 1, -(2**31), 2**62, -(2**63))
TEXTS = ("", "x", "y", "w", "custom", "If", "Constant", "\0", "../x", "a" * 300)


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, content in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in list(content) if field.is_repeated else [content]:
                yield from _messages(inner)


def _scalar(field: Any, chance: random.Random) -> Any:
    """A value that the field can hold, and that a careful reader should doubt."""
    if field.type == field.TYPE_STRING:
        return chance.choice(TEXTS)
    if field.type == field.TYPE_BYTES:
        return chance.randbytes(chance.randrange(10))
    if field.type == field.TYPE_ENUM:
        return chance.choice(field.enum_type.values).number
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return chance.choice((0.0, 1.0, float("inf"), 1e30))
    number = chance.choice(NUMBERS)
    if field.type == field.TYPE_INT32:
        return max(min(number, 2**31 - 1), -(2**31))
    return abs(number) if field.type == field.TYPE_UINT64 else number


def mutate(model: onnx.ModelProto, chance: random.Random) -> None:
    """Change one field of one message: remove, repeat, move or replace what is in it."""
    messages = list(_messages(model))
    message = chance.choice(messages)
    field = chance.choice(message.DESCRIPTOR.fields)
    if field.type == field.TYPE_MESSAGE:
        donors = [other for other in messages if other.DESCRIPTOR is field.message_type]
        donor = type(donors[0])() if donors else None
        if donor is not None:
            donor.CopyFrom(chance.choice(donors))
    else:
        donor = _scalar(field, chance)
    if field.is_repeated and len(getattr(message, field.name)) and chance.random() < 0.5:
        del getattr(message, field.name)[chance.randrange(len(getattr(message, field.name)))]
    elif donor is None or (not field.is_repeated and chance.random() < 0.4):
        message.ClearField(field.name)
    elif field.is_repeated:
        getattr(message, field.name).append(donor)
    elif field.type == field.TYPE_MESSAGE:
        getattr(message, field.name).CopyFrom(donor)
    else:
        setattr(message, field.name, donor)


def seeds(folder: Any) -> list[onnx.ModelProto]:
    """Models that between them use every field."""
    (folder / "data").write_bytes(SECRET)
    models = [place(evil_tensor(Attack(""), folder)) for place in PLACES.values()]
    for edit in PROBES.values():
        models.append(linear_proto(2))
        edit(models[-1])
    return models


@pytest.mark.parametrize("seed", range(4))
def test_a_mutant_is_refused_or_comes_back_the_same(seed, tmp_path):
    chance = random.Random(seed)
    models = seeds(tmp_path)
    refused = 0
    for _ in range(300):
        proto = onnx.ModelProto()
        proto.CopyFrom(chance.choice(models))
        for _ in range(chance.randint(1, 3)):
            mutate(proto, chance)
        try:
            model = from_proto(proto, path=tmp_path / "model.onnx")
            again = from_proto(onnx.ModelProto.FromString(to_bytes(model)))
        except OnnxqError as error:
            refused += 1
            assert error.slug
            continue
        assert fingerprint(again) == fingerprint(model)
    assert 50 < refused < 250

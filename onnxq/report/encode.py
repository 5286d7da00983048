"""Any report as JSON: one function for all of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def to_json(record: DataclassInstance, *, indent: int | None = 2) -> str:
    """A report as JSON text, opened by its ``schema`` where the class names one.

    JSON has no number that is not finite: those are written as the strings ``"inf"``, ``"-inf"`` and
    ``"nan"``, which ``float()`` reads back. What was not measured is ``null``. The text is ASCII, so that no
    stream and no undecodable file name can keep it from being written.
    """
    return json.dumps(_plain(record), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        schema = getattr(value, "schema", None)
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"schema": schema, **fields} if schema else fields
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value

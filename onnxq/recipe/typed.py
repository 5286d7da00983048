"""Plain data (numbers, text, lists, tables) into the types that dataclass fields declare, and back.

One converter serves recipes and pass options, so that a value means the same wherever it is written.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from onnxq.errors import UsageProblem

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}


def convert(value: Any, wanted: Any, where: str) -> Any:
    """`value` as the type `wanted`.

    Args:
        value: What a reader of TOML or of a pass option gives.
        wanted: bool, int, float, str, None, an enum, `Literal`, a union, a tuple, a mapping or a dataclass.
        where: Names the spot in messages, e.g. ``"data.image_size"``.

    Raises:
        UsageProblem: The value is of another type, or names something that does not exist.
    """
    if wanted in _WORDS:
        return _scalar(value, wanted, where)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        _choose(value, [member.value for member in wanted], where)
        return wanted(value)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return build(wanted, _table(value, where), where)
    reader = _GENERIC.get(get_origin(wanted))
    if reader is None:
        raise TypeError(f"{where}: no reader for {wanted!r}")
    return reader(value, wanted, where)


def build(kind: type[Any], table: Mapping[str, Any], where: str = "") -> Any:
    """A dataclass from a table of its fields; unknown keys are refused with the nearest known one.

    Raises:
        UsageProblem: An unknown key, a missing one, or a value of another type.
    """
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    prefix = f"{where}." if where else ""
    for key in table:
        if key not in fields:
            raise unknown(f"{prefix}{key}", key, fields, "setting")
    for name, field in fields.items():
        if name not in table and not _has_default(field):
            raise UsageProblem(
                f"{prefix}{name} is missing", hint=f"It is {describe(hints[name])}.", slug="missing-setting"
            )
    return kind(**{key: convert(value, hints[key], f"{prefix}{key}") for key, value in table.items()})


def plain(value: Any) -> Any:
    """The inverse of `convert`. A field of a dataclass that is None is left out of its table."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return {name: plain(item) for name, item in items.items() if item is not None}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def describe(wanted: Any) -> str:
    """A type in words, e.g. ``"a number, or none"`` or ``"one of fast, balanced, best"``."""
    if wanted in _WORDS:
        return _WORDS[wanted]
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in wanted)
    arguments = get_args(wanted)
    match get_origin(wanted):
        case origin if origin is Literal:
            return "one of " + ", ".join(map(str, arguments))
        case origin if origin in (Union, types.UnionType):
            return ", or ".join(describe(argument) for argument in arguments)
        case origin if origin is tuple:
            many = len(arguments) == 2 and arguments[1] is Ellipsis
            return f"a list of {describe(arguments[0])}" if many else f"a list of {len(arguments)}"
    return getattr(wanted, "__name__", str(wanted))


def unknown(where: str, word: str, known: Iterable[str], what: str) -> UsageProblem:
    """The refusal of a word that does not exist, with the nearest one that does, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1)
    listed = f"There is {', '.join(names)}." if names else "There are none."
    hint = f"Did you mean {close[0]!r}?" if close else listed
    return UsageProblem(f"there is no {what} {where!r}", hint=hint, slug=f"unknown-{what}")


def mismatch(where: str, value: object, wanted: Any) -> UsageProblem:
    """The refusal of a value of another type."""
    return UsageProblem(f"{where} is {value!r}", hint=f"It has to be {describe(wanted)}.", slug="bad-setting")


def _scalar(value: Any, wanted: type[Any], where: str) -> Any:
    # bool is an int to Python and never one to a reader
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise mismatch(where, value, wanted)
    return value


def _choose(value: Any, allowed: list[Any], where: str) -> Any:
    if not any(value == choice and type(value) is type(choice) for choice in allowed):
        words = list(map(str, allowed))
        close = difflib.get_close_matches(str(value), words, 1)
        hint = f"Did you mean {close[0]!r}?" if close else f"It has to be one of {', '.join(words)}."
        raise UsageProblem(f"{where} is {value!r}", hint=hint, slug="bad-setting")
    return value


def _literal(value: Any, wanted: Any, where: str) -> Any:
    return _choose(value, list(get_args(wanted)), where)


def _union(value: Any, wanted: Any, where: str) -> Any:
    problems: list[UsageProblem] = []
    for argument in get_args(wanted):
        try:
            return convert(value, argument, where)
        except UsageProblem as problem:
            problems.append(problem)
    meant = [place for place, argument in enumerate(get_args(wanted)) if argument is not type(None)]
    raise problems[meant[0]] if len(meant) == 1 else mismatch(where, value, wanted)


def _sequence(value: Any, wanted: Any, where: str) -> tuple[Any, ...]:
    arguments = get_args(wanted)
    if not isinstance(value, list | tuple):
        raise mismatch(where, value, wanted)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise mismatch(where, value, wanted)
    pairs = zip(value, arguments, strict=True)
    return tuple(convert(item, argument, f"{where}[{index}]") for index, (item, argument) in enumerate(pairs))


def _mapping(value: Any, wanted: Any, where: str) -> dict[str, Any]:
    inner = get_args(wanted)[1]
    return {key: convert(item, inner, f"{where}.{key}") for key, item in _table(value, where).items()}


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageProblem(f"{where} is {value!r}", hint="It has to be a table.", slug="bad-setting")
    return value


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


_GENERIC: Mapping[Any, Callable[[Any, Any, str], Any]] = {
    Literal: _literal,
    Union: _union,
    types.UnionType: _union,
    tuple: _sequence,
    Mapping: _mapping,
}

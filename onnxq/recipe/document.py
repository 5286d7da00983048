"""`OptimizeSettings` as a TOML file: versioned, complete, and strict about what it does not know."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from onnxq.errors import UsageProblem
from onnxq.recipe.settings import OptimizeSettings
from onnxq.recipe.typed import build, plain

VERSION = 1
"""Raised when a recipe of the version before would be read with another meaning."""


def read_recipe(path: str | Path) -> OptimizeSettings:
    """The settings in a recipe file.

    Raises:
        UsageProblem: No such file, not TOML, an unknown key or version, a value of another type.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"cannot read the recipe {path}: {error}", slug="unreadable-recipe") from error
    return parse_recipe(text, where=str(path))


def parse_recipe(text: str, *, where: str = "the recipe") -> OptimizeSettings:
    """The settings in the text of a recipe.

    Raises:
        UsageProblem: Not TOML, an unknown key or version, a value of another type.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageProblem(f"{where} is not TOML: {error}", slug="bad-recipe") from error
    version = table.pop("version", None)
    if version != VERSION:
        told = "has no version" if version is None else f"is of version {version!r}"
        raise UsageProblem(
            f"{where} {told}", hint=f"This onnxq reads `version = {VERSION}`.", slug="recipe-version"
        )
    settings = build(OptimizeSettings, table)
    assert isinstance(settings, OptimizeSettings)
    return settings


def format_recipe(settings: OptimizeSettings) -> str:
    """The text of a recipe that says every setting; `parse_recipe` gives `settings` back."""
    table = {"version": VERSION, **plain(settings)}
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    parts = [_lines({key: value for key, value in table.items() if key not in tables})]
    parts += [f"[{key}]\n{_lines(value)}" for key, value in tables.items() if value]
    return "\n".join(parts)


def _lines(table: dict[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return repr(value)
    # JSON's strings, whole numbers and booleans are TOML's, but for one control character
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

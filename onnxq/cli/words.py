"""Types of option values that click does not have: shapes, fractions, rows of numbers."""

from __future__ import annotations

import re
from typing import Any

import click

Sizes = tuple[tuple[str, tuple[int, ...]], ...]


class Shapes(click.ParamType[Sizes]):
    """`a=1x128,batch=8` as names and tuples of sizes."""

    name = "NAME=1x128[,...]"
    _ITEM = re.compile(r"(.+?)=(\d+(?:x\d+)*)(?:,|$)")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sizes:
        """Split behind sizes, since names may contain commas and equals signs."""
        if isinstance(value, tuple):
            return value
        found = list(self._ITEM.finditer(value))
        if not found or value.endswith(",") or "".join(each[0] for each in found) != value:
            self.fail(
                f"{value!r} is no shape; it is written like input_ids=1x128, or batch=8,sequence=128.",
                param,
                ctx,
            )
        return tuple((each[1].strip(), tuple(int(size) for size in each[2].split("x"))) for each in found)


class Pair(click.ParamType[tuple[str, str]]):
    """`key=value` as two words."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        key, equals, told = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is no option of a provider; it is written like device_id=1.", param, ctx)
        return key, told


class Processors(click.ParamType[tuple[int, ...]]):
    """`0,2-4` as numbers of processors, `any` as none of them."""

    name = "0,2-4"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read numbers and ranges between commas."""
        if isinstance(value, tuple):
            return value
        if value == "any":
            return ()
        numbers: list[int] = []
        for part in value.split(","):
            ends = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
            first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
            if first > last:
                self.fail(f"{value!r} names no processors; it is written like 0,2-4, or any.", param, ctx)
            numbers += range(first, last + 1)
        return tuple(dict.fromkeys(numbers))


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Size(click.ParamType[int]):
    """`25MB` or a number of bytes."""

    name = "25MB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number and a unit; none stands for bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        unit = _UNITS.get(found[2].lower()) if found else None
        if found is None or unit is None:
            self.fail(f"{value!r} is not a size; it is written like 25MB, or in bytes.", param, ctx)
        return int(float(found[1]) * unit)


class Fraction(click.ParamType[float]):
    """`1%` or `0.01` as 0.01."""

    name = "1%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a share with or without a percent sign."""
        if isinstance(value, float):
            return value
        text = value.strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"{value!r} is not a share; it is written like 1% or 0.01.", param, ctx)


class Numbers(click.ParamType[tuple[float, ...]]):
    """`0.485,0.456,0.406` as a tuple of numbers."""

    name = "X,Y,Z"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read numbers between commas."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(word) for word in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no row of numbers; it is written like 0.485,0.456,0.406.", param, ctx)

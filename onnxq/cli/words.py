"""Types of option values that click does not have: shapes, fractions, rows of numbers."""

from __future__ import annotations

import re
from typing import Any

import click


class Shape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """`name=1x128` as a name and a tuple of sizes."""

    name = "NAME=1x128"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Split at the last equals sign, since names may contain some."""
        if isinstance(value, tuple):
            return value
        name, _, sizes = value.rpartition("=")
        if not name or not re.fullmatch(r"\d+(x\d+)*", sizes):
            self.fail(f"{value!r} is not a shape; it is written like input_ids=1x128.", param, ctx)
        return name, tuple(int(size) for size in sizes.split("x"))


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

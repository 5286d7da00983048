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

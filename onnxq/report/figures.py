"""Figures as people read them: sizes, times, ratios; and names that play no tricks on a terminal."""

from __future__ import annotations

import math

_UNITS = ("B", "kB", "MB", "GB", "TB")
NOTHING = "–"
"""Stands where nothing was measured."""


def size(count: int) -> str:
    """Bytes in powers of 1000 with three digits, e.g. ``"22.9 MB"``."""
    power = min(int(math.log10(count) // 3), len(_UNITS) - 1) if count > 0 else 0
    return f"{count / 1000**power:.3g} {_UNITS[power]}" if power else f"{count} B"


def milliseconds(value: float | None) -> str:
    """A time with three digits, e.g. ``"34.6 ms"``."""
    return NOTHING if value is None else f"{_digits(value, 3)} ms"


def seconds(value: float) -> str:
    """A wall clock time, e.g. ``"41 s"`` or ``"0.3 s"``."""
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def ratio(value: float | None) -> str:
    """How many times, e.g. ``"2.43x"``."""
    return NOTHING if value is None else f"{_digits(value, 3)}x"


def cosine(value: float | None) -> str:
    """A cosine with as many digits as its distance from 1 needs, four at least; exact 1 only if it is."""
    if value is None:
        return NOTHING
    places = 4
    while places < 9 and value < 1 and round(value, places) >= 1:
        places += 1
    return f"{value:.{places}f}"


def decibels(value: float | None) -> str:
    """A signal to noise ratio, e.g. ``"31.4 dB"``; equal signals have no noise."""
    if value is None:
        return NOTHING
    return "equal" if value == math.inf else f"{value:.1f} dB"


def percent(value: float | None) -> str:
    """A share, e.g. ``"98.3 %"``."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """Any other figure, with three digits."""
    return NOTHING if value is None else f"{value:.3g}"


def printable(text: str) -> str:
    """`text` with everything invisible written out.

    Names come from models, and a model can come from anywhere: an escape sequence in a node's name must
    neither colour a terminal nor reverse the order of what follows it.
    """
    return "".join(
        char if char.isprintable() or char == "\u00a0" else char.encode("unicode_escape").decode()
        for char in text
    )


def shorten(text: str, width: int) -> str:
    """`text` with its middle cut out where it is longer than `width`: the ends of a node's name tell most."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def _digits(value: float, count: int) -> str:
    """`count` significant digits without an exponent."""
    if not math.isfinite(value) or value == 0:
        return f"{value:.{count - 1}f}" if value == 0 else str(value)
    places = max(0, count - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"

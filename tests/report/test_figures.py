import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.report import figures


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (figures.size, 0, "0 B"),
        (figures.size, 999, "999 B"),
        (figures.size, 23_100_000, "23.1 MB"),
        (figures.size, 5 * 10**15, "5e+03 TB"),
        (figures.milliseconds, 34.62, "34.6 ms"),
        (figures.milliseconds, 1234.5, "1234 ms"),
        (figures.milliseconds, 0.01234, "0.0123 ms"),
        (figures.milliseconds, 0.0, "0.00 ms"),
        (figures.milliseconds, None, "–"),
        (figures.seconds, 41.2, "41 s"),
        (figures.seconds, 0.31, "0.3 s"),
        (figures.ratio, 2.449, "2.45x"),
        (figures.cosine, 0.99621, "0.9962"),
        (figures.cosine, 0.999981, "0.99998"),
        (figures.cosine, 1.0, "1.0000"),
        (figures.decibels, 31.44, "31.4 dB"),
        (figures.decibels, math.inf, "equal"),
        (figures.percent, 0.9834, "98.3 %"),
        (figures.number, 0.0021, "0.0021"),
    ],
)
def test_figures_are_written_with_the_digits_that_matter(
    write: Callable[[Any], str], value: Any, text: str
) -> None:
    assert write(value) == text


@given(st.floats(0.9, 1.0, exclude_max=True))
def test_only_an_exact_cosine_reads_as_one(value: float) -> None:
    assert figures.cosine(value) != "1.0000" or value > 1 - 1e-9


@given(st.text())
def test_nothing_invisible_is_printed(text: str) -> None:
    assert all(char.isprintable() or char == "\u00a0" for char in figures.printable(text))


def test_escape_sequences_and_reversals_are_written_out() -> None:
    assert figures.printable("a\x1b[31mb\u202ec\n") == "a\\x1b[31mb\\u202ec\\n"


@given(st.text(), st.integers(4, 40))
def test_shortened_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = figures.shorten(text, width)
    assert len(short) <= width
    if len(text) > width:
        assert text.startswith(short.split("…")[0])
        assert text.endswith(short[-1])

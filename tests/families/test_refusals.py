"""The page of refusals says what the passes say."""

from __future__ import annotations

import pytest

from tests.families.refusals import PAGE, cases, is_told, refused, written

STEP = 17
"""Every so many cases are looked at each time, all of them with ``-m slow``."""


@pytest.mark.parametrize("case", cases()[::STEP], ids=lambda case: f"{case.family}-{case.change}")
def test_what_is_refused_is_on_the_page(case) -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [
        (name, reason)
        for name, reasons in refused(case).items()
        for reason in reasons
        if not is_told(page, case, name, reason)
    ]
    assert missing == [], "run: python -m tests.families.refusals"


def test_what_is_not_refused_is_not_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    case = cases()[0]
    assert not is_told(page, case, "shift-scale", "there is no such reason")
    assert not is_told(page, case, "no-such-pass", "no linear reads it")


@pytest.mark.slow
def test_the_page_is_what_the_passes_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == written([(case, refused(case)) for case in cases()])

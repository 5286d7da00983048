"""What the table of passes says of exact passes that were judged only as a whole."""

import dataclasses
import io

import pytest

from onnxq.report.page import html_page
from onnxq.report.results import Report
from onnxq.report.rows import Equality, Verdict
from onnxq.report.terminal import console, show


def terminal(report: Report) -> str:
    stream = io.StringIO()
    show(report, console(stream))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("equal", "Exact passes together: equal on 11 made-up inputs"),
        ("cannot judge", "Exact passes together: cannot judge on 11 made-up inputs: it has Loops"),
    ],
)
@pytest.mark.parametrize("render", [terminal, html_page])
def test_the_verdict_on_all_exact_passes_is_told(report: Report, render, verdict: Verdict, told: str) -> None:
    judged = dataclasses.replace(report, exact=Equality(verdict, 11, "it has Loops"))
    assert f"{told}{'' if render is html_page else chr(10)}" in render(judged)


@pytest.mark.parametrize("render", [terminal, html_page])
def test_nothing_is_told_where_nothing_was_judged(report: Report, render) -> None:
    assert "together" not in render(report)

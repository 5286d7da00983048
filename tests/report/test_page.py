import dataclasses
from html.parser import HTMLParser

import pytest

from onnxq.report.measures import Rejection
from onnxq.report.page import html_page
from onnxq.report.results import Report
from onnxq.report.rows import PassRow

EVIL = '</style><script>alert(1)</script>"\x1b\u202e'
VOID = {"meta", "wbr"}


class Tags(HTMLParser):
    """Collects tags and text, and fails where they are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_fetches_and_runs_nothing(report: Report) -> None:
    tags = Tags(html_page(report))
    names = {name for name, _ in tags.seen}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form", "a"})
    attributes = {attribute for _, found in tags.seen for attribute in found}
    assert attributes.isdisjoint({"src", "href", "srcset", "onload", "onclick", "style"})
    assert "url(" not in html_page(report)
    assert "@import" not in html_page(report)


def test_the_page_tells_everything_that_was_measured(report: Report) -> None:
    text = Tags(html_page(report)).text
    told = [row.name for row in report.layers]
    told += [row.name for row in report.passes]
    told += [reject.reason for row in report.passes for reject in row.rejects]
    told += [
        report.after.sha256,
        report.machine.cpu,
        "64 samples to calibrate",
        "128 others",
        "MatMulIntegerToFloat",
    ]
    told += [*report.hints, 'effort = "balanced"', "2.5x the speed or more"]
    assert [each for each in told if each not in text] == []


def test_the_page_has_a_picture_of_each_kind(report: Report) -> None:
    labels = [found["aria-label"] for name, found in Tags(html_page(report)).seen if name == "svg"]
    assert sorted({str(label).split(" at ")[0] for label in labels}) == [
        "Channel magnitudes before and after",
        "Least latency of each model",
        "Legend",
        "Plans: cost against signal to noise",
        "Signal to quantization noise of each layer",
    ]


def test_a_hostile_model_cannot_write_into_the_page(report: Report) -> None:
    evil = dataclasses.replace(
        report,
        before=dataclasses.replace(report.before, name=EVIL, producer=EVIL),
        layers=(dataclasses.replace(report.layers[0], name=EVIL, reason=EVIL, decision=EVIL, sqnr_db=1.0),),
        channels=(dataclasses.replace(report.channels[0], layer=EVIL),),
        passes=(PassRow(EVIL, EVIL, 1, (Rejection(EVIL, EVIL),), note=EVIL),),
        latency=(dataclasses.replace(report.latency[0], shape=EVIL, model=EVIL),),
        fidelity=(dataclasses.replace(report.fidelity[0], output=EVIL),),
        kernels={EVIL: 1},
        hints=(EVIL,),
        front=tuple(dataclasses.replace(row, step=EVIL) for row in report.front),
        refinements=tuple(dataclasses.replace(row, name=EVIL, reason=EVIL) for row in report.refinements),
        recipe=EVIL,
    )
    page = html_page(evil)
    tags = Tags(page)
    assert "script" not in {name for name, _ in tags.seen}
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert tags.text.count("alert(1)") > 10


@pytest.mark.parametrize(
    "field",
    [
        "latency",
        "fidelity",
        "layers",
        "front",
        "refinements",
        "channels",
        "passes",
        "goals",
        "hints",
        "recipe",
    ],
)
def test_a_part_that_was_not_measured_leaves_no_empty_section(report: Report, field: str) -> None:
    empty = dataclasses.replace(report, **{field: "" if field == "recipe" else ()})
    page = html_page(empty)
    Tags(page)
    assert page.count("<section>") < html_page(report).count("<section>")
    assert "</h2></section>" not in page


def test_same_report_same_page(report: Report) -> None:
    assert html_page(report) == html_page(dataclasses.replace(report))

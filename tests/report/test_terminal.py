import dataclasses
import io

import pytest

from onnxq.report.results import Inspection, Report
from onnxq.report.rows import FrontRow, Part
from onnxq.report.terminal import console, show


def printed(result: object, *, everything: bool = False) -> str:
    stream = io.StringIO()
    show(result, console(stream), everything=everything)
    return stream.getvalue()


def test_a_file_gets_plain_text_that_is_wide_enough(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    text = printed(report)
    assert "\x1b" not in text
    assert "lands in MatMulIntegerToFloat" in text
    assert "/encoder/layer.10/output/dense/MatMul" in text
    assert report.hints[0] in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_colour_unless_it_is_not_wanted(
    report: Report, monkeypatch: pytest.MonkeyPatch, no_color: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    show(report, console(stream))
    assert ("\x1b[31m" in stream.getvalue()) is not no_color


def test_names_cannot_drive_the_terminal_or_the_markup(report: Report) -> None:
    evil = dataclasses.replace(report.layers[0], name="\x1b[2J[red]x[/red]", sqnr_db=0.0)
    text = printed(dataclasses.replace(report, layers=(evil,)))
    assert "\x1b" not in text
    assert "\\x1b[2J[red]x[/red]" in text


def test_tables_without_rows_and_columns_without_figures_are_left_out(report: Report) -> None:
    bare = dataclasses.replace(report, latency=(), fidelity=report.fidelity[:1])
    text = printed(bare)
    assert "Latency" not in text
    assert "Same top-1" not in text
    assert "Mean cosine" in text


def test_long_tables_come_when_asked_for(report: Report) -> None:
    seen = Inspection(report.before, {"norm": 1}, (Part("norm", "/ln/Add_1", "layer, 9 nodes", "384"),))
    assert "/ln/Add_1" not in printed(seen)
    assert "/ln/Add_1" in printed(seen, everything=True)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_plans_take_few_lines_and_no_more_width_than_there_is(
    report: Report, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    step = f"/encoder/layer.11/{'a_long_name/' * 8}MatMul_output_0: int8 static, 8 channels in float"
    front = tuple(FrontRow(1000.0 + place, 0.1, step, place == 70) for place in range(300))
    text = printed(dataclasses.replace(report, front=front))
    sheet = text[text.index("Plans") :].split("\n\n")[0].splitlines()
    assert len(sheet) <= (9 if width > 100 else 21)
    assert max(map(len, sheet)) <= width
    assert any("71" in line and "this\u00a0one" in line for line in sheet)

"""The page and the sheets of `bench`: rectangular, inside their frames, and safe with any name."""

import re
import xml.etree.ElementTree as Tree

from hypothesis import given
from hypothesis import strategies as st

from onnxq.report import drawing
from onnxq.report.bench_page import html_page
from onnxq.report.bench_rows import MemoryRow, NodeRow, OperatorRow, PlacementRow
from onnxq.report.bench_sheets import operator_sheets
from onnxq.report.measures import Machine, Timing
from onnxq.report.outline import outline
from onnxq.report.results import BenchResult
from tests.report.test_drawing import frame_holds

MACHINE = Machine("EPYC", ("avx2",), 2, 2, 10**9, "Linux", "3.11", "1.32", "")
NASTY = "<script>alert(1)</script>\x1b[31m\"'&"
RESULT = BenchResult(
    MACHINE,
    (
        Timing(NASTY, "x=1", 2, 2.0, 2.1, 0.1, medians_ms=(2.0, 2.4), runs=10),
        Timing("b", "x=1", 2, 1.0, 1.1, 0.1, 2.0, 1.8, 2.1, "faster", (1.1, 1.2), 10),
        Timing(NASTY, NASTY, 2, 2.0, 2.1, 0.1),
        Timing("b", NASTY, 2, 2.0, 2.1, 0.1, 1.0, 0.9, 1.1, "not resolved"),
    ),
    5,
    "cuda",
    hints=(NASTY,),
    host="pi@edge",
    copies=False,
    disabled_optimizers=("Fusion",),
    memory=(MemoryRow(NASTY, NASTY, 1000, 3.0, None, 5 << 20),),
    operators=(OperatorRow(NASTY, NASTY, NASTY, 3, 900.0, 1.0), OperatorRow("b", NASTY, "Add", 1, 9.0, 1.0)),
    nodes=(NodeRow(NASTY, NASTY, NASTY, NASTY, 500.0, 0.5),),
    placements=(PlacementRow(NASTY, NASTY, NASTY, 4, {NASTY: 4}),),
)


def test_a_page_is_safe_with_any_name() -> None:
    page = html_page(RESULT)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "default-src 'none'" in page
    Tree.fromstring(re.sub(r"<meta[^>]*>|<wbr>|<!doctype html>|(?<=<details) open", "", page))


def test_every_row_has_as_many_cells_as_there_are_columns() -> None:
    told = outline(RESULT)
    titles = [sheet.title for sheet in told.sheets]
    assert {"Latency", "Memory", "Where nodes ran", "Slowest nodes"} <= set(titles)
    for sheet in told.sheets:
        assert {len(row.cells) for row in sheet.rows} == {len(sheet.columns)}


def test_the_line_below_says_where_and_how() -> None:
    note = outline(RESULT).sheets[0].note
    for told in ("on pi@edge", "cuda", "copies not counted", "without Fusion", "5 rounds"):
        assert told in note


def test_what_is_not_resolved_is_not_a_speed() -> None:
    first, second = outline(RESULT).headline.splitlines()
    assert "(rounds: 1.80–2.10x) at x=1" in first
    assert second.startswith("no difference between b and ")


def test_operators_stand_side_by_side_and_add_up() -> None:
    rows = [OperatorRow("a", "x", f"Op{i}", 2, 10.0, 1 / 40) for i in range(40)]
    rows.append(OperatorRow("b", "x", "Op1", 3, 500.0, 1.0))
    (sheet,) = operator_sheets(rows)
    assert sheet.columns == ("Operator", ">a", ">b")
    assert sheet.rows[0].cells[0] == "Op1"
    assert len(sheet.rows) == 12 + 2
    assert sheet.rows[-2].cells[0] == "28 others"
    assert "0.400 ms  100.0 %    80" in sheet.rows[-1].cells[1].replace("\u00a0", " ")


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.text(max_size=40), st.floats(0, 1e9)),
        max_size=60,
    )
)
def test_operator_bars_stay_in_their_frame(rows: list[tuple[str, str, str, float]]) -> None:
    operators = [OperatorRow(model, shape, op, 1, us, 0.1) for model, shape, op, us in sorted(rows)]
    svg = frame_holds(drawing.operator_bars(operators))
    for mark in svg:
        if mark.tag == "rect":
            assert float(mark.attrib["x"]) + float(mark.attrib["width"]) <= 900


def test_the_same_operator_has_the_same_colour_everywhere() -> None:
    rows = [
        OperatorRow("a", "x", "MatMul", 1, 90, 0.9),
        OperatorRow("a", "x", "Add", 1, 10, 0.1),
        OperatorRow("b", "x", "Add", 1, 30, 0.6),
        OperatorRow("b", "x", "MatMul", 1, 20, 0.4),
    ]
    colours: dict[str, set[str]] = {}
    for mark in frame_holds(drawing.operator_bars(rows)).iter("rect"):
        told = (mark[0].text or "").partition(":")[0]
        colours.setdefault(told, set()).add(mark.attrib["class"])
    assert {op: len(seen) for op, seen in colours.items()} == {"MatMul": 1, "Add": 1}
    assert colours["MatMul"] != colours["Add"]


def test_dots_are_the_processes() -> None:
    svg = frame_holds(drawing.latency_bars(RESULT.timings))
    assert sum(mark.tag == "circle" for mark in svg.iter()) == 4

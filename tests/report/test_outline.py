"""What each result says, and that its sheets are rectangular."""

import dataclasses

import pytest

from onnxq.report import results
from onnxq.report.measures import DataSummary, Fidelity, Machine, ModelSummary, Rejection, Timing
from onnxq.report.outline import headline, outline
from onnxq.report.page import html_page
from onnxq.report.results import Report
from onnxq.report.rows import Check, DemoRow, FrontRow, OptionRow, OutlierRow, Part, PassRow
from onnxq.report.sheets import Sheet

MODEL = ModelSummary("m.onnx", "00", 90_900_000, 17, 8, "pytorch", 412)
MACHINE = Machine("EPYC", ("avx2",), 2, 2, 10**9, "Linux", "3.11", "", "0.1.0")
DATA = DataSummary("d.npz", "11", 0, 16)
FIDELITY = (Fidelity("y", 0.99, 0.98, 20.0, 0.5),)

CASES = [
    (
        results.ApplyReport(
            MODEL,
            MODEL,
            (PassRow("p", "bitwise", 3, (Rejection("too wide", "n"),), 0.1, "equal"),),
            (),
            "equal",
        ),
        "3 changes to m.onnx, checked: equal",
        "too wide",
    ),
    (
        results.CompareResult(MODEL, MODEL, DATA, FIDELITY, "cannot judge", "random outputs"),
        "m.onnx against m.onnx: cannot judge: random outputs",
        "0.9900",
    ),
    (
        results.BenchResult(
            MACHINE, (Timing("a", "x=1", 2, 1, 1, 0), Timing("b", "x=1", 2, 0.4, 0.5, 0, 2.0)), 5, "cpu"
        ),
        "b runs at 2.00x the speed of a",
        "0.500 ms",
    ),
    (
        results.Inspection(
            MODEL,
            {"linear": 72},
            (Part("linear", "MatMul_1"),),
            (Rejection("gamma is computed", "n"),),
            (OutlierRow("x", "fc", 90.0, 300.0, 45.0),),
        ),
        "m.onnx: 90.9 MB, opset 17, 412 nodes, by pytorch",
        "45.0x",
    ),
    (
        results.Diagnosis(
            MACHINE, (Check("runtime", "fail", "not there", "pip install"), Check("cpu", "ok", "x"))
        ),
        "Not ready: 1 thing missing",
        "pip install",
    ),
    (results.Diagnosis(MACHINE, (Check("cpu", "ok", "x"),)), "Ready", "x"),
    (
        results.DemoResult(
            MACHINE, (DemoRow("fp32", 0.98, None, None, 1.0, None, 900_000),), 360, 41.0, "r.html"
        ),
        "One transformer, three ways, in 41 s",
        "98.0 %",
    ),
    (
        results.PassPage(
            "fold", "A => B", "A => B", "bitwise", ("histogram",), 13, (OptionRow("g", "a number", "1.0"),)
        ),
        "fold\nA => B",
        "a number",
    ),
    (
        results.Catalogue((results.PassPage("fold", "A => B", "A => B", "bitwise"),)),
        "1 passes",
        "A => B",
    ),
    (
        results.CalibrationSummary("m.onnx", "d.npz", 40, "s.npz"),
        "Statistics of 40 values on d.npz are in s.npz",
        "",
    ),
]


@pytest.mark.parametrize(("result", "told", "cell"), CASES, ids=lambda case: type(case).__name__)
def test_a_result_says_what_happened(result: object, told: str, cell: str) -> None:
    made = outline(result)
    assert made.headline == told
    cells = [text for sheet in made.sheets for row in sheet.rows for text in row.cells]
    assert not cell or cell in cells


def test_sheets_are_rectangular(report: Report) -> None:
    made = [outline(result) for result, *_ in CASES] + [outline(report)]
    for sheet in (sheet for each in made for sheet in (*each.sheets, *each.details)):
        assert all(len(row.cells) == len(sheet.columns) for row in sheet.rows), sheet.title


def test_the_headline_gives_speed_fidelity_and_size(report: Report) -> None:
    assert headline(report) == (
        "2.45x the speed at input_ids=8x128, mean cosine 0.9962 (lowest 0.9910), 90.9 MB → 23.1 MB"
    )


def test_the_target_and_the_provider_are_told(report: Report) -> None:
    timed = dataclasses.replace(report, target="tensorrt", provider="cuda")
    sheets = {sheet.title: sheet for sheet in outline(timed).sheets}
    assert "Decisions for tensorrt" in sheets
    assert sheets["Latency"].note.endswith(" · cuda provider")
    page = html_page(timed)
    assert "<dt>Target</dt><dd>tensorrt<small>timed with cuda</small>" in page
    unknown = dataclasses.replace(report, target="")
    assert "Decisions" in {sheet.title for sheet in outline(unknown).sheets}
    assert "<dt>Target</dt>" not in html_page(unknown)


def test_a_plan_without_error_is_equal_whatever_adding_up_left(report: Report) -> None:
    front = (FrontRow(1.0, 0.1, chosen=True), FrontRow(2.0, 1e-23, "x: float"))
    (sheet,) = (s for s in outline(dataclasses.replace(report, front=front)).sheets if "Plans" in s.title)
    assert [row.cells[2] for row in sheet.rows] == ["10.0 dB", "equal"]


def plans(report: Report, count: int, chosen: int) -> list[tuple[str, ...]]:
    front = tuple(
        FrontRow(1000.0 + place, 0.1 ** (1 + place / 10), f"/layer.{place}/MatMul: float" if place else "")
        for place in range(count)
    )
    front = tuple(dataclasses.replace(row, chosen=place == chosen) for place, row in enumerate(front))
    found = [s for s in outline(dataclasses.replace(report, front=front)).sheets if "Plans" in s.title]
    return [row.cells for sheet in found for row in sheet.rows]


@pytest.mark.parametrize(
    ("count", "chosen", "shown"),
    [
        (100, 40, [1, 40, 41, 42, 100]),
        (100, 0, [1, 2, 100]),
        (100, 99, [1, 99, 100]),
        (3, 1, [1, 2, 3]),
        (2, 0, [1, 2]),
        (1, 0, []),
        (0, 0, []),
    ],
)
def test_of_the_plans_the_ends_and_those_about_the_chosen_one_are_shown(
    report: Report, count: int, chosen: int, shown: list[int]
) -> None:
    rows = plans(report, count, chosen)
    assert [int(row[0]) for row in rows] == shown
    assert [int(row[0]) for row in rows if "this\u00a0one" in row] == [chosen + 1] * bool(shown)


def test_plans_are_told_by_cost_against_the_cheapest_noise_and_step(report: Report) -> None:
    first, *_, last = plans(report, 11, 5)
    assert first[1:] == ("1.000x", "10.0 dB", "", "the cheapest")
    assert last[1:] == ("1.010x", "20.0 dB", "", "/layer.10/MatMul: float")


def test_the_headline_leaves_out_what_was_not_measured(report: Report) -> None:
    bare = dataclasses.replace(report, latency=(), fidelity=())
    assert headline(bare) == "90.9 MB → 23.1 MB"


def test_the_worst_layers_come_first_and_only_a_few(report: Report) -> None:
    (worst,) = (sheet for sheet in outline(report).sheets if "largest error" in sheet.title)
    assert worst.rows[0].cells[2] == "11.2 dB"
    assert len(worst.rows) == 6


def test_reasons_come_with_their_numbers_and_are_counted_without(report: Report) -> None:
    sheets = {sheet.title: sheet for sheet in outline(report).sheets}
    assert "float takes 41 us more" in worst_of(report).rows[0].cells
    assert not any("us more" in cell for row in sheets["Decisions for x86-vnni"].rows for cell in row.cells)
    assert "lands in MatMulIntegerToFloat: error 4.1 times smaller for 1.3 us more" in html_page(report)


def worst_of(report: Report, **given: object) -> Sheet:
    layers = tuple(dataclasses.replace(row, **given) for row in report.layers)  # type: ignore[arg-type]
    sheets = outline(dataclasses.replace(report, layers=layers)).sheets
    (worst,) = (sheet for sheet in sheets if "largest error" in sheet.title)
    return worst


def test_effects_are_labelled_for_what_they_are(report: Report) -> None:
    decided, inputs = worst_of(report), worst_of(report, effect_db=None, input_effect_db=41.25)
    assert ">Of the model" in decided.columns
    assert decided.note.startswith("Of the model: its output")
    assert inputs.rows[0].cells[inputs.columns.index(">Input alone")] == "41.2 dB"
    assert inputs.note.endswith("in static 8 bits")
    assert worst_of(report, effect_db=None, input_effect_db=None).note == ""
    assert "Output, its input alone in static 8 bits" in html_page(report)


def test_a_slower_result_and_a_missed_goal_look_bad(report: Report) -> None:
    slow = dataclasses.replace(report, latency=(Timing("int8", "x", 2, 2, 2, 0, 0.5),))
    tones = {row.tone for sheet in outline(slow).sheets for row in sheet.rows if sheet.title == "Latency"}
    assert tones == {"bad"}
    (goals,) = (sheet for sheet in outline(report).sheets if sheet.title == "Goals")
    assert [row.tone for row in goals.rows] == ["good", "bad"]

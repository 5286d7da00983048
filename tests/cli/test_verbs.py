"""The other verbs: what they ask the API for, and what they hand out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from onnxq.cli.program import program
from onnxq.contract import Contract, Pass
from onnxq.recipe import BenchSettings, DataSettings
from onnxq.report import results
from onnxq.report.measures import DataSummary, Timing
from onnxq.report.outline import outline
from onnxq.report.rows import Check, DemoRow, PassRow
from tests.cli.conftest import MACHINE, MODEL, Api

DATA = DataSummary("d.npz", "11", 0, 16)
BENCH = results.BenchResult(MACHINE, (Timing("m.onnx", "x=1", 2, 1, 1, 0),), 5)
SICK = results.Diagnosis(MACHINE, (Check("runtime", "fail", "not there", "pip install onnxq[cpu]"),))


class Statistics(dict[str, int]):
    def save(self, path: Path) -> None:
        path.write_bytes(b"statistics")


class Applied(SimpleNamespace):
    report = results.ApplyReport(MODEL, MODEL, verdict="equal")

    def save(self, path: Path) -> None:
        path.write_bytes(b"applied")


class Nothing(Pass):
    """A => A"""

    name = "nothing"
    contract = Contract.BITWISE


ANSWERS = {
    "apply": Applied(),
    "calibrate": Statistics(x=1),
    "compare": results.CompareResult(MODEL, MODEL, DATA, verdict="equal"),
    "bench": BENCH,
    "inspect": results.Inspection(MODEL, {"linear": 3}),
    "doctor": results.Diagnosis(MACHINE, (Check("cpu", "ok", "fine"),)),
    "demo": results.DemoResult(MACHINE, (DemoRow("fp32", 0.9, None, None, 1, None, 9),), 360, 3, "r.html"),
}
SAID = {
    **ANSWERS,
    "apply": Applied.report,
    "calibrate": results.CalibrationSummary("m.onnx", "random", 1, "s.npz"),
}
LINES = {
    "apply": (
        "apply",
        "m.onnx",
        "--pass",
        "a",
        "--pass",
        "b",
        "-o",
        "x.onnx",
        "--calib",
        "random",
        "--clip",
        "fine",
        "--samples",
        "3",
    ),
    "calibrate": ("calibrate", "m.onnx", "--calib", "random", "-o", "s.npz", "--samples", "3"),
    "compare": ("compare", "m.onnx", "x.onnx", "--data", "random", "--samples", "3"),
    "bench": (
        "bench",
        "m.onnx",
        "x.onnx",
        "--threads",
        "1",
        "--shape",
        "x=1x2",
        "--rounds",
        "3",
        "--seconds",
        "0.5",
    ),
    "inspect": ("inspect", "m.onnx", "--calib", "random", "--samples", "3"),
    "doctor": ("doctor",),
    "demo": ("demo", "--report", "r.html"),
}


@pytest.fixture
def verbs(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    for verb, answer in ANSWERS.items():
        api.answers(verb, answer)
    monkeypatch.setattr("onnxq.recipe.parse_pass", lambda text: f"pass {text}")
    return api


def test_every_verb_is_tested() -> None:
    assert set(program.commands) == {*LINES, "optimize", "passes"}


@pytest.mark.parametrize("verb", LINES)
def test_a_verb_prints_its_headline(verbs: Api, run: Callable[..., Result], verb: str) -> None:
    result = run(*LINES[verb])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == outline(SAID[verb]).headline


@pytest.mark.parametrize("verb", LINES)
def test_with_json_a_verb_prints_one_document(
    verbs: Api, run: Callable[..., Result], told: Callable[[Result], Any], verb: str
) -> None:
    plain, result = run(*LINES[verb]), run(*LINES[verb], "--json")
    assert told(result)["schema"].startswith("onnxq/")
    assert plain.stdout in result.stderr


def test_what_is_asked_of_the_api(verbs: Api, run: Callable[..., Result]) -> None:
    for words in LINES.values():
        run(*words)
    asked = {
        verb: (args, {name: value for name, value in kwargs.items() if name != "progress"})
        for verb, args, kwargs in verbs.calls
    }
    data = DataSettings(samples=3)
    model, other = Path("m.onnx"), Path("x.onnx")
    assert asked == {
        "apply": ((model, ["pass a", "pass b"]), {"calibration": "random", "data": data, "clip": "fine"}),
        "calibrate": ((model, "random"), {"data": data}),
        "compare": ((model, other, "random"), {"options": data}),
        "bench": (((model, other), BenchSettings(1, {"x": (1, 2)}, 3, 0.5)), {}),
        "inspect": ((model, "random"), {"data": data}),
        "doctor": ((), {}),
        "demo": ((), {"report": Path("r.html")}),
    }
    assert (Path("x.onnx").read_bytes(), Path("s.npz").read_bytes()) == (b"applied", b"statistics")


def test_a_machine_that_is_not_ready_fails_after_the_diagnosis(
    api: Api, run: Callable[..., Result], told: Callable[[Result], Any]
) -> None:
    api.answers("doctor", SICK)
    result = run("doctor", "--json")
    assert result.exit_code == 8
    assert told(result)["checks"][0]["way_out"] == "pip install onnxq[cpu]"
    assert "not ready: runtime" in result.stderr


def test_progress_is_told_a_line_a_stage_where_there_is_no_terminal(
    api: Api, run: Callable[..., Result]
) -> None:
    def doing(*_: Any, progress: Callable[[str, int, int], None], **__: Any) -> results.BenchResult:
        for done in range(3):
            progress("timing", done, 3)
        progress("resting", 0, 0)
        progress("rewriting: drop-identity", 0, 2)
        progress("rewriting: drop-dropout", 1, 2)
        return BENCH

    setattr(api, "bench", doing)  # noqa: B010 - a module of the test
    assert run("bench", "m.onnx").stderr == "timing (3)\nresting\nrewriting\n"


@pytest.mark.parametrize("names", [(), ("nothing",)])
def test_passes_are_read_off_their_classes(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr("onnxq.passes.registry", lambda: {"nothing": Nothing})
    result = run("passes", *names)
    assert result.exit_code == 0, result.stderr
    assert "A => A" in result.stdout
    assert "bitwise" in result.stdout


def test_apply_writes_nothing_if_a_pass_broke_its_promise(verbs: Api, run: Callable[..., Result]) -> None:
    broken = PassRow("nothing", "bitwise", 0, verdict="different", note="y is off by 3")
    answer = Applied()
    answer.report = dataclasses.replace(Applied.report, passes=(broken,))
    verbs.answers("apply", answer)
    result = run("apply", "m.onnx", "--pass", "nothing", "-o", "x.onnx")
    assert result.exit_code == 5
    assert "nothing: y is off by 3" in result.stderr
    assert not Path("x.onnx").exists()

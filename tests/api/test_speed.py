"""A file that is slower than the original is a miss wherever the times are those of its target."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxq.api import evaluate, optimization, optimize, speed
from onnxq.api.evaluate import Pace, time_pairs
from onnxq.api.optimization import OptimizeResult
from onnxq.calibration import open_data
from onnxq.recipe import OptimizeSettings, parse_recipe
from onnxq.report.encode import to_json
from onnxq.report.measures import Goal
from onnxq.report.outline import outline
from onnxq.report.page import html_page
from onnxq.runtime import PROVIDERS, Latency, Runtime, read_machine
from onnxq.runtime.latency import STEADY_ROUNDS
from tests.api import models

SHAPES = ({"x": (1, 16)}, {"x": (8, 16)})
HERE = ("avx2", "avx512f", "avx512_vnni")


def latency(
    ratio: float, verdict: str = "", *, low: float | None = None, high: float | None = None
) -> Latency:
    return Latency(
        1, 5 / ratio, 5 / ratio, 0.01, 0.1, (5 / ratio,), 10, 1, 100, ratio, ratio,
        speedup_low=low or ratio, speedup_high=high or ratio, verdict=verdict,  # type: ignore[arg-type]
    )  # fmt: skip


FASTER, SLOWER = latency(1.5, "faster"), latency(0.874, "slower")
UNTOLD = latency(0.984, "not resolved", low=0.95, high=1.03)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], Latency]:
    """What the rewritten model is told to take at each shape, on a processor with 8-bit dot products."""
    answers = dict.fromkeys(((1, 16), (8, 16)), FASTER)

    def measured(found: Mapping[str, Any], *_: Any, shapes: Any, **__: Any) -> dict[str, Latency]:
        original, rewritten = found
        return {original: latency(1.0), rewritten: answers[shapes["x"]]}

    machine = dataclasses.replace(read_machine(), architecture="x86_64", features=HERE)
    monkeypatch.setattr(optimization, "read_machine", lambda: machine)
    monkeypatch.setattr("onnxq.api.evaluate.measure_latency", measured)
    return answers


def made(**given: Any) -> OptimizeResult:
    plain = {"threads": 1, "effort": "fast", "verify": "never", "shapes": SHAPES, "costs": {"call": 1.0}}
    return optimize(models.small(), models.small_data(), settings=OptimizeSettings(**(plain | given)))


HOLDS = [
    {},
    {"target": "x86-vnni"},
    {"format": "qdq"},
    {"format": "qdq", "target": "x86-vnni"},
    {"target": "qdq"},
]
ELSEWHERE = ["arm-i8mm", "x86-amx", "x86-avx2", "openvino", "cuda", "tensorrt", "qdq-symmetric"]


@pytest.mark.parametrize("given", HOLDS, ids=str)
def test_slower_than_fp32_is_a_miss_that_names_the_shape(
    given: dict[str, str], told: dict[tuple[int, ...], Latency]
) -> None:
    told[1, 16] = SLOWER
    result = made(**given)
    assert not result.met
    (goal,) = result.report.goals
    assert (goal.asked, goal.got) == ("no slower than fp32", "0.87x at x=1x16")
    assert "--min-speedup 0.7" in goal.way_out


@pytest.mark.parametrize("given", HOLDS, ids=str)
def test_a_faster_file_meets_what_nobody_had_to_ask(
    given: dict[str, str], told: dict[tuple[int, ...], Latency]
) -> None:
    told[1, 16] = latency(1.2, "faster")
    report = made(**given).report
    assert report.goals == (Goal("no slower than fp32", "1.20x at x=1x16", True),)
    assert not any("prove nothing" in hint for hint in report.hints)


@pytest.mark.parametrize("target", ELSEWHERE)
def test_times_of_another_processor_prove_nothing_and_the_report_says_so(
    target: str, told: dict[tuple[int, ...], Latency]
) -> None:
    told[1, 16] = SLOWER
    result = made(target=target)
    assert result.met
    assert result.report.goals == ()
    (hint,) = (each for each in result.report.hints if "prove nothing" in each)
    assert "x86-vnni" in hint, "whose times they are"
    assert "0.87x at x=1x16" in hint, "it is slower here, for what that is worth"


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(("given", "name"), [({}, "x86-vnni"), ({"target": "arm-dot"}, "arm-dot")])
def test_the_report_and_its_recipe_name_the_target(given: dict[str, str], name: str) -> None:
    report = made(**given).report
    assert report.target == name
    assert json.loads(to_json(report))["target"] == name
    assert parse_recipe(report.recipe).target == name, "auto would be another one on another machine"


def test_every_shape_that_loses_is_named(told: dict[tuple[int, ...], Latency]) -> None:
    told[1, 16], told[8, 16] = SLOWER, latency(0.5, "slower")
    (goal,) = made().report.goals
    assert goal.got == "0.87x at x=1x16, 0.50x at x=8x16"


def test_a_difference_that_is_not_resolved_is_not_called_slower(told: dict[tuple[int, ...], Latency]) -> None:
    told[8, 16] = UNTOLD
    result = made()
    assert result.met
    (goal,) = result.report.goals
    assert goal.got == "0.98x at x=8x16, not resolved"
    (hint,) = (each for each in result.report.hints if "rounds" in each)
    assert "x=8x16" in hint
    assert "0.950–1.03x" in hint


def test_a_speed_that_was_asked_for_goes_before_the_one_that_nobody_had_to_ask_for(
    told: dict[tuple[int, ...], Latency],
) -> None:
    told[1, 16] = SLOWER
    result = made(min_speedup=0.7)
    assert result.met
    assert result.report.goals == (Goal("speed at least 0.7x", "0.87x at x=1x16", True),)


@pytest.mark.parametrize(("effort", "few"), [("fast", 2), ("balanced", 3), ("best", 5)])
def test_every_effort_looks_again_where_it_may_be_slower(
    effort: str, few: int, told: dict[tuple[int, ...], Latency], monkeypatch: pytest.MonkeyPatch
) -> None:
    told[1, 16] = UNTOLD
    asked: list[tuple[tuple[int, ...], int]] = []
    answer = evaluate.measure_latency

    def measured(found: Any, feeds: Any = None, **given: Any) -> dict[str, Latency]:
        asked.append((given["shapes"]["x"], given["rounds"]))
        return answer(found, feeds, **given)

    monkeypatch.setattr(evaluate, "measure_latency", measured)
    made(effort=effort)
    assert asked == [((1, 16), few), ((1, 16), STEADY_ROUNDS), ((8, 16), few)]


@pytest.mark.parametrize(("took", "rounds"), [(1.0, 8), (12.0, 5), (21.0, 2), (500.0, 0)])
def test_a_second_look_takes_no_longer_than_there_is_patience_for(took: float, rounds: int) -> None:
    assert Pace(3, 0.5, 1, in_doubt=8, patience=20.0).again(took).rounds == rounds


def test_large_models_are_not_looked_at_again(
    told: dict[tuple[int, ...], Latency], monkeypatch: pytest.MonkeyPatch
) -> None:
    told[1, 16] = UNTOLD
    asked: list[int] = []
    answer, clock = evaluate.measure_latency, iter(range(0, 100_000, 60))

    def measured(found: Any, feeds: Any = None, **given: Any) -> dict[str, Latency]:
        asked.append(given["rounds"])
        return answer(found, feeds, **given)

    monkeypatch.setattr(evaluate, "measure_latency", measured)
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    made(effort="fast")
    assert asked == [2, 2]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Providers that models were timed with, by an onnxruntime that lists all of them."""
    asked: list[str] = []

    def measured(found: Mapping[str, Any], *_: Any, provider: str, **__: Any) -> dict[str, Latency]:
        asked.append(provider)
        return dict(zip(found, (latency(1.0), SLOWER), strict=True))

    runtime = Runtime("1.32.0", "", tuple(PROVIDERS.values()), ("onnxruntime",))
    machine = dataclasses.replace(read_machine(), architecture="x86_64", features=HERE, runtime=runtime)
    monkeypatch.setattr(optimization, "read_machine", lambda: machine)
    monkeypatch.setattr("onnxq.api.evaluate.measure_latency", measured)
    monkeypatch.setattr(speed, "failure_of", lambda provider: "")
    return asked


@pytest.mark.parametrize("target", ["openvino", "cuda", "tensorrt"])
def test_a_target_is_timed_with_its_own_provider_where_that_starts(target: str, used: list[str]) -> None:
    result = made(target=target)
    assert set(used) == {target}
    report = result.report
    assert report.provider == target
    (goal,) = report.goals
    assert (goal.asked, goal.met) == ("no slower than fp32", False), "these are the times of the target"
    assert not any("prove nothing" in hint for hint in report.hints)
    assert any(f"the {target} provider" in hint and "CPU" in hint for hint in report.hints), report.hints
    (times,) = (sheet for sheet in outline(report).sheets if sheet.title == "Latency")
    assert f"{target} provider" in times.note
    assert f"{target} provider" in html_page(report)


def test_a_speed_along_the_front_is_one_of_the_same_provider(used: list[str]) -> None:
    made(target="openvino", min_speedup=0.5)
    assert set(used) == {"openvino"}
    assert len(used) > len(SHAPES), "on the way as well as at the end"


@pytest.mark.parametrize("target", ["auto", "x86-avx2", "arm-dot", "qdq", "qdq-symmetric"])
def test_other_targets_are_timed_on_the_cpu(target: str, used: list[str]) -> None:
    assert made(target=target).report.provider == "cpu"
    assert set(used) == {"cpu"}


def test_a_provider_that_does_not_start_gives_way_to_the_cpu_and_says_why(
    used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "failure_of", lambda provider: f"no driver for {provider}")
    result = made(target="cuda")
    assert set(used) == {"cpu"}
    assert (result.met, result.report.provider) == (True, "cpu")
    (hint,) = (each for each in result.report.hints if "prove nothing" in each)
    assert "no driver for cuda" in hint


@pytest.mark.parametrize(("first", "rounds"), [(UNTOLD, [2, 5]), (FASTER, [2]), (SLOWER, [2])])
def test_more_rounds_tell_where_few_leave_it_open(
    first: Latency, rounds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measured(found: Mapping[str, Any], *_: Any, rounds: int, **__: Any) -> dict[str, Latency]:
        asked.append(rounds)
        return dict(zip(found, (latency(1.0), first if rounds == 2 else SLOWER), strict=True))

    monkeypatch.setattr("onnxq.api.evaluate.measure_latency", measured)
    model = models.small()
    data = open_data({"x": np.zeros((4, 16), np.float32)}, model)
    ((_, found),) = time_pairs(model, model, data, [{"x": (1, 16)}], Pace(2, 0.5, 1, in_doubt=5))
    assert asked == rounds
    assert found["onnxq"] is (first if len(rounds) == 1 else SLOWER)

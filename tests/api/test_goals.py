"""Goals that cannot be had at once, goals that steer, and what the report says of them."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxq.demo
from onnxq.api import goals, optimize
from onnxq.api.evaluate import Pace
from onnxq.api.goals import Goals, drop_of
from onnxq.api.records import weight_bytes
from onnxq.api.stage import Stage
from onnxq.api.steering import Standing
from onnxq.errors import UsageProblem
from onnxq.recipe import DataSettings, OptimizeSettings
from onnxq.verify import compare
from tests.api import models
from tests.api.optimized import tiny

QUICK = {"effort": "fast", "threads": 1, "target": "x86-vnni", "verify": "never"}


def stage() -> Stage:
    return Stage.open(models.digits(), onnxq.demo.load_calibration(), DataSettings(samples=16), threads=1)


def far(db: float):
    """A comparison with that much noise."""
    exact = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)
    return compare({"y": exact}, {"y": exact + noise * np.float32(10 ** (-db / 20))})


def test_each_goal_pulls_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = stage()
    size = weight_bytes(opened.model)
    asked: list[Pace] = []

    def slow(reference, candidate, source, cases, pace):
        asked.append(pace)
        return []

    monkeypatch.setattr(goals, "time_pairs", slow)

    def standing(db: float, **wanted: float) -> Standing:
        return Goals(opened, OptimizeSettings(**wanted)).standing(opened.model, far(db))  # type: ignore[arg-type]

    assert standing(0) is Standing.FITS
    assert standing(0, min_fidelity=0.999) is Standing.TOO_FAR
    assert standing(60, min_fidelity=0.999) is Standing.FITS
    assert standing(60, max_size=size - 1) is Standing.TOO_COSTLY
    assert standing(60, max_size=size) is Standing.FITS
    assert standing(0, min_fidelity=0.999, max_size=size - 1) is Standing.HOPELESS
    assert not asked, "nothing is timed unless a speed was asked for"
    standing(60, min_speedup=2)
    assert len(asked) == 1


@pytest.mark.parametrize(("before", "after", "drop"), [(0.5, 0.4, 0.2), (-2.0, -3.0, 0.5), (0.0, -1.0, 1.0)])
def test_a_drop_is_a_share_of_the_score(before: float, after: float, drop: float) -> None:
    assert drop_of(before, after) == pytest.approx(drop)


def test_a_size_that_is_missed_is_reported() -> None:
    settings = OptimizeSettings(effort="fast", threads=1, target="x86-vnni", max_size=1000)
    result = optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings)
    assert not result.met
    missed = [goal for goal in result.report.goals if not goal.met]
    assert [goal.asked for goal in missed] == ["weights of at most 1 kB"]
    chosen = [row.chosen for row in result.report.front]
    assert sum(chosen) == 1
    assert chosen[0], "the cheapest plan is the last that was tried"


@functools.cache
def weights_of(weights: str, **given: Any) -> int:
    settings = OptimizeSettings(**(QUICK | {"weights": weights} | given))
    return weight_bytes(optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings).model)


def way_out(**given: Any) -> str:
    """What the report says of the one goal that was missed."""
    settings = OptimizeSettings(**(QUICK | given))
    report = optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings).report
    (missed,) = (goal for goal in report.goals if not goal.met)
    return missed.way_out


def test_a_size_that_only_four_bits_reach_names_them_and_about_what_they_come_to() -> None:
    eight, four = weights_of("int8"), weights_of("int4")
    assert four < eight, "else nothing is shown"
    told = way_out(max_size=(four + eight) // 2)
    found = re.fullmatch(r"`--weights int4` comes to about ([\d.]+) kB of weights\.", told)
    assert found, told
    assert float(found[1]) * 1000 == pytest.approx(four, rel=0.1)


def test_a_size_that_four_bits_miss_too_is_told_as_that() -> None:
    assert "--weights int4" in way_out(max_size=1000)
    assert way_out(max_size=1000).endswith("which is too large as well.")


def test_a_speed_that_is_missed_names_four_bits_and_where_they_are_faster() -> None:
    assert way_out(min_speedup=50.0).startswith("`--weights int4` reads half the bytes")
    assert "few rows" in way_out(min_speedup=50.0)


@pytest.mark.parametrize(
    "given", [{"weights": "int4"}, {"format": "qdq"}, {"target": "qdq"}, {"passes": ("quantize-linears",)}]
)
def test_four_bits_are_not_named_where_they_are_there_already_or_cannot_be(given: dict[str, Any]) -> None:
    assert way_out(max_size=1000, **given) == ""
    assert way_out(min_speedup=50.0, **given) == ""


def test_costs_of_a_recipe_go_before_those_measured_and_wrong_ones_are_named() -> None:
    settings = OptimizeSettings(effort="fast", threads=1, costs={"calls": 1.0})
    with pytest.raises(UsageProblem, match="calls"):
        optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings)


def test_a_speed_that_is_not_reached_is_a_goal_missed() -> None:
    result = tiny(min_speedup=50.0)
    assert not result.met
    (goal,) = result.report.goals
    assert (goal.asked, goal.got, goal.met) == ("speed at least 50x", "2.50x at x=6x16", False)
    assert tiny(min_speedup=2.0).met


def test_fidelity_that_is_missed_is_bought_with_float() -> None:
    plain = tiny()
    assert len(plain.report.kernels) == 1
    strict = tiny(min_fidelity=0.9999999)
    assert strict.met
    assert strict.report.kernels == {}
    reasons = {row.reason for row in strict.report.layers}
    assert reasons == {"the fidelity asked for was missed without it"}
    assert [goal.asked for goal in strict.report.goals] == ["no slower than fp32", "mean cosine at least 1"]


def test_a_score_of_the_users_own_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "scores_of_mine.py").write_text(
        "import numpy as np\n"
        "def size(session):\n"
        "    y = session.run({'x': np.ones((2, 16), 'f')})['y']\n"
        "    return float(len(y))\n"
        "def falls(session, seen=[]):\n"
        "    seen.append(1)\n"
        "    return 1.0 if len(seen) == 1 else 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    kept = tiny(eval="scores_of_mine:size", max_drop=0.01)
    assert kept.met
    assert "2 to 2" in kept.report.goals[-1].got
    fallen = tiny(eval="scores_of_mine:falls", max_drop=0.4)
    assert not fallen.met
    assert "1 to 0.5 (+50.00% dropped)" in fallen.report.goals[-1].got


@pytest.mark.parametrize("hook", ["no_such_module_here:f", "json:no_such_function", "json"])
def test_a_score_that_is_not_there_is_refused(hook: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        tiny(eval=hook, max_drop=0.1)
    assert caught.value.slug == "no-such-function"

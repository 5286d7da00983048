"""What the best effort tries on a planned model, what it keeps, and what the report says of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from onnxq.api import optimize
from onnxq.api.emission import Emission, Fitting
from onnxq.api.learned import WORK, Learning, WriteWeights, weights_on_grid
from onnxq.api.ranges import UNTRIED
from onnxq.api.refinement import Candidate, Refinement, Trial, refine
from onnxq.api.stage import Stage
from onnxq.errors import UnsupportedModel
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.fitting import Rounding
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
from onnxq.planning.adjustable import AdjustableModel
from onnxq.planning.layers import Plan
from onnxq.recipe import DataSettings, OptimizeSettings
from onnxq.targets import find
from tests.api import models


class Scale:
    """A trial whose figures are told beforehand, by the rank of a candidate's correction."""

    def __init__(self, told: dict[int, tuple[float, float]]) -> None:
        self.told = told
        parts = SimpleNamespace(separate=True)
        self.stage = SimpleNamespace(trial=parts, progress=lambda *given: None)

    def decibels(self, candidate: Candidate) -> tuple[float, float]:
        return self.told[candidate.fitting.rank]


def rank(by: int) -> Refinement:
    return Refinement(
        f"rank and {by}",
        lambda given: replace(given, fitting=replace(given.fitting, rank=given.fitting.rank + by)),
    )


def refined(told: dict[int, tuple[float, float]], *tried: Refinement) -> tuple[int, list[tuple[bool, str]]]:
    best, rows = refine(Candidate(models.small(), UNTRIED), tried, Scale(told))  # type: ignore[arg-type]
    return best.fitting.rank, [(row.kept, row.reason) for row in rows]


def test_each_is_tried_behind_what_was_kept() -> None:
    told = {0: (20.0, 22.0), 1: (21.0, 22.5), 3: (20.9, 22.0), 5: (25.0, 25.0)}
    kept, rows = refined(told, rank(1), rank(2), rank(4))
    assert kept == 5
    assert [row[0] for row in rows] == [True, False, True]
    assert rows[0][1] == "held-out samples gain 0.75 dB"


@pytest.mark.parametrize(
    ("after", "reason"),
    [((26.0, 21.9), "the other loses"), ((20.04, 22.04), "too little"), ((19.0, 21.0), "do not gain")],
)
def test_what_does_not_gain_on_both_halves_goes(after: tuple[float, float], reason: str) -> None:
    kept, rows = refined({0: (20.0, 22.0), 1: after}, rank(1))
    assert kept == 0
    assert not rows[0][0]
    assert reason in rows[0][1]


def test_what_cannot_be_tried_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(candidate: Candidate) -> Candidate:
        raise UnsupportedModel("Scan has no gradient", slug="no-gradient")

    kept, rows = refined({0: (20.0, 20.0), 1: (21.0, 21.0)}, Refinement("learned", refuse), rank(1))
    assert (kept, rows[0]) == (1, (False, "not tried: Scan has no gradient"))
    monkeypatch.setattr("onnxq.api.refinement.SECONDS", -1.0)
    assert refined({0: (20.0, 20.0)}, rank(1)) == (0, [(False, "not tried: the time was up")])


class Codes(NamedTuple):
    """As `onnxq.learn`, which wants torch, gives them."""

    codes: np.ndarray
    scale: np.ndarray


def test_learned_codes_are_the_codes_that_are_written() -> None:
    """They go into the graph as weights on the grid of their column, and rounding gives them back."""
    model = models.small()
    linear = next(found for node in nodes(model) if isinstance(found := find_linear(node), Linear))
    scale = np.abs(linear.weight).max(axis=0, keepdims=True) / 127
    up = np.random.default_rng(0).integers(0, 2, linear.weight.shape)
    codes = np.clip(np.floor(linear.weight / scale) + up, -127, 127)
    largest = np.abs(linear.weight).argmax(axis=0), np.arange(linear.columns)
    assert (codes[largest] == -126).any()  # a step up from the most negative: the scale would shrink
    label = str(linear.node.name)
    weights = weights_on_grid(model, {label: Codes(codes.astype(np.int8), scale)}, 8)
    written = apply_pass(model, WriteWeights(weights))
    assert written.modified
    assert not apply_pass(written.model, WriteWeights(weights)).modified
    emission = Emission(find("qdq"), OptimizeSettings())
    first, second = emission.fitted(Plan(()), UNTRIED, Fitting(on_grid=(label,), rounding="drop"))
    assert (first.only, first.rounding) == ((label,), "nearest")
    assert (label in second.skip, second.rounding) == (True, "drop")
    found = next(found for node in nodes(written.model) if isinstance(found := find_linear(node), Linear))
    scale = np.abs(found.weight).max(axis=0) / 127
    codes[largest] = np.sign(linear.weight[largest]) * 127
    np.testing.assert_array_equal(np.rint(found.weight / scale), codes)


def test_learning_takes_as_many_steps_as_it_may() -> None:
    learning = Learning(SimpleNamespace())  # type: ignore[arg-type]
    assert learning._affordable(200, 50, WORK / 1000) == 200
    assert learning._affordable(200, 50, WORK / 70.5) == 70
    with pytest.raises(UnsupportedModel, match="longer"):
        learning._affordable(200, 50, WORK / 49)


def trial_of(rounding: Rounding) -> Trial:
    stage = Stage.open(models.small(), models.small_data(), DataSettings(), threads=1)
    return Trial(
        stage, stage.model, lambda given: (QuantizeLinears(ranges=given.ranges.given, rounding=rounding),)
    )


def test_ranges_are_those_of_the_quantized_model() -> None:
    trial = trial_of("feedback")
    given = replace(UNTRIED, given=(("t", 0.0, 2.5),))
    candidate = Candidate(trial.model, given)
    found = trial.ranges(candidate)
    assert found == AdjustableModel(trial.quantized(candidate)).ranges
    assert len(found) == 2
    assert found["t"] == pytest.approx((0.0, 2.5))


def test_learned_ranges_keep_the_margin_that_they_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned with it, they gain on data like the calibration's by cutting it off, and lose on other data."""
    pytest.importorskip("torch")
    from onnxq import learn

    trial, given = trial_of("nearest"), {}

    def learner(model: object, ranges: dict[str, tuple[float, float]], *rest: object) -> SimpleNamespace:
        given.update(ranges)
        return SimpleNamespace(ranges={name: (low / 2, high / 4) for name, (low, high) in ranges.items()})

    monkeypatch.setattr(learn, "learn_steps", learner)
    candidate = Candidate(trial.model, replace(UNTRIED, given=(("n", -90.0, 1.0),)))
    trial.decibels(candidate)
    start, found = trial.ranges(candidate), Learning(trial)._ranges(candidate).ranges.given
    learned = {name: (low, high) for name, low, high in found}
    seen = trial._known["n"]
    assert given["n"] == pytest.approx((seen.low, start["n"][1]))  # beyond what was seen; cut within it
    assert seen.low > -90
    for name, (low, high) in start.items():
        assert learned[name] == pytest.approx((low / 2, high / 4))


def test_nothing_large_is_held_while_something_is_learned() -> None:
    trial, held = trial_of("feedback"), []

    def learner(*given: object) -> str:
        held.extend(trial._known.values())
        return "learned"

    candidate = Candidate(trial.model, UNTRIED)
    before, operations = trial.decibels(candidate), trial.operations()
    assert all(seen.moments is not None for seen in trial._known.values())
    assert Learning(trial)._ask(candidate, learner, None, {}) == "learned"
    assert len(held) == 2
    assert all(seen.moments is seen.rows is None for seen in held)
    assert trial.operations() == operations > 0
    assert trial.decibels(candidate) == before


@pytest.mark.parametrize("torch", [True, False])
def test_the_report_tells_what_was_tried(torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch:
        pytest.importorskip("torch")
        monkeypatch.setattr("onnxq.api.learned.ROUNDING_STEPS", 5)
    else:
        for name in [name for name in sys.modules if name.startswith("onnxq.learn")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr("onnxq.learn", raising=False)
        monkeypatch.setitem(sys.modules, "torch", None)
    given: dict[str, Any] = {"threads": 1, "effort": "best", "verify": "never", "target": "qdq"}
    report = optimize(models.small(), models.small_data(), settings=OptimizeSettings(**given)).report
    assert len(report.refinements) == 8
    for row in report.refinements:
        assert row.reason
        tried = row.before_db is not None and row.after_db is not None
        assert tried == (not row.reason.startswith("not tried"))
        assert not row.kept or (row.after_db or 0) > (row.before_db or 0)
    missing = [row for row in report.refinements if "torch" in row.reason]
    assert len(missing) == (0 if torch else 3)
    assert all(row.effect_db is not None for row in report.layers if row.decision.startswith("int8 static"))

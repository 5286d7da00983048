"""What rounding one activation does to the output of the whole model."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.api import attempts as module
from onnxq.api import optimize
from onnxq.api.attempts import Attempts
from onnxq.api.evaluate import measure_effects
from onnxq.api.stage import Stage
from onnxq.calibration import open_data
from onnxq.passes.quantize.ranges import params_for
from onnxq.recipe import DataSettings, OptimizeSettings
from onnxq.targets import find
from tests.graphs import model_of

K = 64
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(16, 6, K)).astype(np.float32)


def network():
    """Two branches whose errors are alike; of the quiet one's output a thousandth gets through."""
    body = "a = Sin(x) b = Cos(x) p = MatMul(a, w) q = MatMul(b, v) r = Mul(q, little) y = Add(p, r)"
    one, two = (RANDOM.normal(size=(K, K)).astype(np.float32) for _ in range(2))
    text = f"g (float[B,S,{K}] x) => (float[B,S,{K}] y) {{ {body} }}"
    return model_of(text, w=one, v=two, little=np.float32(1e-3)), one


def test_an_effect_is_the_noise_at_the_output() -> None:
    model, weight = network()
    ranges = {"a": (-1.0, 1.0), "b": (-1.0, 1.0)}
    effects = measure_effects(model, ranges, open_data({"x": X}, model), threads=1)
    noise = (params_for(-1.0, 1.0).apply(np.sin(X)) - np.sin(X)) @ weight
    signal = np.sin(X) @ weight
    assert effects["a"] == pytest.approx(float(np.square(noise).sum() / np.square(signal).sum()), rel=0.02)
    assert 0 < effects["b"] < 1e-5 * effects["a"]


def test_numbers_that_are_not_finite_are_no_noise() -> None:
    model, _ = network()
    exact = measure_effects(model, {"a": (-1.0, 1.0)}, open_data({"x": X}, model), threads=1)
    masked = model_of(
        f"g (float[B,S,{K}] x) => (float[B,S,{K}] y, float[B,S,{K}] z) "
        "{ a = Sin(x) y = MatMul(a, w) s = Sign(a) i = Mul(s, all) z = Add(y, i) }",
        w=model.graph.initializers["w"].const_value.numpy(),
        all=np.full(K, np.inf, np.float32),
    )
    effects = measure_effects(masked, {"a": (-1.0, 1.0)}, open_data({"x": X}, masked), threads=1)
    assert effects["a"] == pytest.approx(exact["a"], rel=0.02)


@pytest.mark.parametrize(("effort", "measured"), [("fast", False), ("balanced", True), ("best", True)])
def test_plans_count_errors_by_their_effect(
    effort: str, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quiet branch errs as the other does, and counts a millionth."""
    model, _ = network()
    stage = Stage.open(model, {"x": X}, DataSettings(), threads=1)
    calls: list[object] = []
    told: dict[str, float] = {}

    def counted(*given: object) -> dict[str, float]:
        calls.append(given)
        told.update(measure_effects(*given))  # type: ignore[arg-type]
        return told

    monkeypatch.setattr(module, "measure_effects", counted)
    settings = OptimizeSettings(effort=effort, verify="never")  # type: ignore[arg-type]
    outcome = Attempts(stage, find("x86-vnni"), settings).best()
    assert bool(calls) == measured
    assert outcome.plan is not None
    assert outcome.plan.front
    if measured:
        errors = {name: each.measured[0].error for name, each in outcome.plan.candidates.items()}
        assert errors["b"] < 1e-4 * errors["a"]
    for place in (0, len(outcome.plan.front) - 1):
        effects = [layer.input_effect_db for layer in outcome.plan.at(place, "").layers]
        assert effects == (
            [pytest.approx(10 * -np.log10(told[name])) for name in "ab"] if told else [None] * 2
        )


@pytest.mark.parametrize("effort", ["fast", "balanced", "best"])
def test_the_report_tells_what_each_input_alone_does_to_the_output(effort: str) -> None:
    """Whatever was decided for the layer; what that does is another figure, which best alone tells."""
    model, _ = network()
    settings = OptimizeSettings(effort=effort, verify="never", target="x86-vnni", threads=1)  # type: ignore[arg-type]
    rows = optimize(model, {"x": X}, settings=settings).report.layers
    assert [row.input_effect_db is not None for row in rows] == [effort != "fast"] * 2
    decided = [row.effect_db is not None for row in rows]
    assert decided == [effort == "best" and row.decision.startswith("int8") for row in rows]
    if effort != "fast":
        loud, quiet = (row.input_effect_db or 0.0 for row in rows)
        assert quiet > loud + 40
    assert all(row.evidence for row in rows)

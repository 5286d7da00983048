"""Ranges that are chosen by trying, and cut back where the output gains."""

from __future__ import annotations

import pytest

import onnxq.demo
from onnxq.api import ranges as module
from onnxq.api.checkpoints import Checkpoints
from onnxq.api.ranges import Ranges, choose_ranges
from onnxq.api.stage import Stage
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.recipe import DataSettings, OptimizeSettings
from onnxq.verify import Comparison, OutputComparison
from tests.api import models


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage.open(models.digits(), onnxq.demo.load_calibration(), DataSettings(samples=32), threads=1)


def rounding(ranges: Ranges) -> QuantizeLinears:
    return QuantizeLinears(method=ranges.method, margin=ranges.margin, ranges=ranges.given)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ((20.0, 20.0, 20.0, 20.0), Ranges(margin=0.3)),
        ((20.0, 20.4, 20.4, 20.4), Ranges(margin=0.3)),
        ((20.0, 21.0, 20.9, 20.9), Ranges(margin=0.2)),
        ((20.0, 20.0, 21.0, 21.0), Ranges(margin=0.1)),
        ((20.0, 20.0, 20.4, 21.0), Ranges("level", margin=0.0)),
    ],
)
def test_the_widest_ranges_that_do_about_as_well(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], chosen: Ranges
) -> None:
    def judged(reference, candidates, source, threads, advance):
        noises = [10 ** (-score / 10) for score in scores]
        return {
            name: Comparison({"y": OutputComparison("y", signal=1.0, noise=noise)})
            for name, noise in zip(candidates, noises, strict=True)
        }

    monkeypatch.setattr(module, "measure_fidelities", judged)
    settings = OptimizeSettings(effort="balanced")
    assert choose_ranges(stage, stage.model, settings, rounding, Checkpoints(None)) == chosen

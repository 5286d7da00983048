"""Ranges that are chosen by trying, and cut back where the output gains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import onnxq.demo
from onnxq.api import ranges as module
from onnxq.api.checkpoints import Checkpoints
from onnxq.api.ranges import Ranges, choose_ranges, clip_ranges
from onnxq.api.stage import Stage
from onnxq.contract import names_wanted
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
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


def test_clipped_ranges_reach_the_pass_and_are_kept(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, kept = Ranges(margin=0.5), Checkpoints(tmp_path)
    clipped = clip_ranges(stage, stage.model, start, rounding, kept)
    assert replace(clipped, given=()) == start
    assert all(low < high for _, low, high in clipped.given)
    statistics = stage.gather(stage.model, names_wanted([rounding(start)], stage.model))
    before, after = (apply_pass(stage.model, rounding(each), statistics).model for each in (start, clipped))
    trial = stage.trial.heldout
    errors = [
        module.measure_fidelities(stage.model, {"": model}, trial, 1)[""].sqnr_db for model in (before, after)
    ]
    assert errors[1] >= errors[0] - 0.5, "it was judged on these samples"

    def never(*given: object, **options: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(module, "coarse_clipping", never)
    assert clip_ranges(stage, stage.model, start, rounding, kept) == clipped

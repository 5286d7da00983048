"""Ranges that are cut back where the output gains: in `optimize`, and by themselves in `apply`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxq.demo
from onnxq.api import apply, clipping
from onnxq.api.checkpoints import Checkpoints
from onnxq.api.clipping import Clip, clip_ranges
from onnxq.api.evaluate import measure_fidelities, measure_fidelity
from onnxq.api.ranges import Ranges
from onnxq.api.stage import Stage
from onnxq.calibration import open_data
from onnxq.contract import AnyPass, names_wanted
from onnxq.errors import UsageProblem
from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
from onnxq.recipe import DataSettings
from tests.api import models
from tests.graphs import model_of


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage.open(models.digits(), onnxq.demo.load_calibration(), DataSettings(samples=32), threads=1)


def rounding(ranges: Ranges) -> QuantizeLinears:
    return QuantizeLinears(method=ranges.method, margin=ranges.margin, ranges=ranges.given)


def test_clipped_ranges_reach_the_pass_and_are_kept(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, kept = Ranges(margin=0.5), Checkpoints(tmp_path)
    clipped = clip_ranges(stage, stage.model, start, rounding, kept)
    assert replace(clipped, given=()) == start
    assert all(low < high for _, low, high in clipped.given)
    statistics = stage.gather(stage.model, names_wanted([rounding(start)], stage.model))
    before, after = (apply_pass(stage.model, rounding(each), statistics).model for each in (start, clipped))
    trial = stage.trial.held_out
    errors = [measure_fidelities(stage.model, {"": model}, trial, 1)[""].sqnr_db for model in (before, after)]
    assert errors[1] >= errors[0] - 0.5, "it was judged on these samples"

    def never(*given: object, **options: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(clipping, "coarse_clipping", never)
    assert clip_ranges(stage, stage.model, start, rounding, kept) == clipped


K = 64
TOKENS = np.random.default_rng(0).uniform(-1, 1, size=(40, 16, K)).astype(np.float32)
TOKENS[::7, 0] *= 1000
"""One token in a hundred towers over the others, and hardly anything of it gets through."""


def towering():
    body = "a = MatMul(x, w) q = Tanh(a) y = MatMul(q, v)"
    random = np.random.default_rng(1)
    return model_of(
        f"g (float[B,16,{K}] x) => (float[B,16,{K}] y) {{ {body} }}",
        w=random.normal(size=(K, K)).astype(np.float32),
        v=random.normal(size=(K, K)).astype(np.float32),
    )


@pytest.mark.parametrize("clip", ["coarse", "fine"])
def test_apply_clips_what_towers_and_says_so(clip: Clip) -> None:
    model, passes = towering(), [QuantizeLinears()]
    plain = apply(model, passes, calibration={"x": TOKENS}, threads=1)
    clipped = apply(model, passes, calibration={"x": TOKENS}, clip=clip, threads=1)
    source = open_data({"x": TOKENS}, model)
    before, after = (measure_fidelity(model, each.model, source, 1).sqnr_db for each in (plain, clipped))
    assert after > before + 3
    assert "ranges clipped at a share of" in clipped.report.clipping
    assert ("one by one" in clipped.report.clipping) == (clip == "fine")
    assert plain.report.clipping == ""


@pytest.mark.parametrize(
    ("passes", "data", "slug"),
    [
        ([QuantizeLinears()], None, "no-data"),
        ([FoldGamma()], TOKENS, "nothing-to-clip"),
        ([QuantizeLinears()], TOKENS[:1], "too-few-samples"),
    ],
)
def test_clipping_that_cannot_be_is_refused(
    passes: list[AnyPass], data: np.ndarray | None, slug: str
) -> None:
    with pytest.raises(UsageProblem) as problem:
        apply(towering(), passes, calibration=None if data is None else {"x": data}, clip="coarse")
    assert problem.value.slug == slug
    assert problem.value.hint

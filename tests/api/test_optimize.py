"""`optimize` from end to end: what comes out computes, is quantized as reported, and the same every time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxq.demo
from onnxq.api import OptimizeResult, optimize, stage
from onnxq.calibration import collect
from onnxq.contract import Reject
from onnxq.files import load, to_bytes
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.recipe import DataSettings, OptimizeSettings, format_pass, parse_pass, parse_recipe
from onnxq.report.results import Report
from onnxq.runtime import kernels_of, open_session, optimized_graph
from tests.api import models
from tests.api.optimized import QUICK, digits, tiny
from tests.graphs import check

FAMILIES = {
    "post": ("post", 18, True, "never"),
    "post by script": ("post", 14, False, "never"),
    "pre": ("pre", 23, True, "never"),
    "decoder": ("decoder", 18, True, "each"),
    "crossed": ("crossed", 18, True, "never"),
}


@cache
def family(name: str) -> tuple[ir.Model, OptimizeResult]:
    kind, opset, dynamo, verify = FAMILIES[name]
    model = models.export(kind, opset, dynamo)
    settings = OptimizeSettings(**(QUICK | {"target": "qdq", "verify": verify}))
    return model, optimize(model, models.data_for(kind), settings=settings)


def linears_of(model: ir.Model) -> list[Linear]:
    return [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]


def assert_consistent(report: Report, before: ir.Model, after: ir.Model) -> None:
    """What the report says of the models can be read off the models."""
    assert len(report.layers) == len(linears_of(before))
    quantized = sum(row.decision.startswith("int8") for row in report.layers)
    assert sum(report.kernels.values()) == quantized
    assert report.kernels == kernels_of(optimized_graph(after))
    left = [find_linear(node) for node in nodes(after)]
    assert sum(isinstance(linear, Linear) for linear in left) == len(report.layers) - quantized
    assert len([node for node in left if isinstance(node, Reject)]) >= quantized
    for row in report.layers:
        assert row.reason
        assert (row.sqnr_db is not None and np.isfinite(row.sqnr_db)) == row.decision.startswith("int8")
    assert {row.output for row in report.fidelity} == {value.name for value in after.graph.outputs}
    assert report.before.nodes == sum(1 for _ in nodes(before))
    assert report.after.nodes == sum(1 for _ in nodes(after))
    assert report.before.sha256 != report.after.sha256
    assert sum(row.changes for row in report.passes) == sum(row.count for row in report.journal)
    assert parse_recipe(report.recipe).target in ("qdq", "x86-vnni")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_comes_out_quantized_and_close(name: str) -> None:
    model, result = family(name)
    assert_consistent(result.report, model, result.model)
    large = [row.decision for row in result.report.layers if row.columns > 8 and row.channels >= 16]
    assert set(large) <= {"int8 static", "float"}, "a Q/DQ target has no other form"
    assert large.count("int8 static") >= 0.8 * len(large), "float is for the odd layer that errs most"
    (fidelity,) = result.report.fidelity
    assert 0.995 < fidelity.cosine_min <= fidelity.cosine_mean <= 1
    assert fidelity.sqnr_db > 25
    check(result.model)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_interface_stays(name: str) -> None:
    model, result = family(name)
    for old, new in zip(
        (*model.graph.inputs, *model.graph.outputs),
        (*result.model.graph.inputs, *result.model.graph.outputs),
        strict=True,
    ):
        assert (old.name, old.dtype, str(old.shape)) == (new.name, new.dtype, str(new.shape))
    assert model.opset_imports[""] == result.model.opset_imports[""]


def test_the_model_that_was_given_is_not_changed() -> None:
    model = models.small()
    before = to_bytes(model)
    optimize(model, models.small_data(), settings=OptimizeSettings(**QUICK, target="qdq"))
    assert to_bytes(model) == before


def test_exactness_is_told_as_far_as_it_was_checked() -> None:
    assert family("crossed")[1].report.exact is None
    for result in (digits(), family("decoder")[1]):
        exact = result.report.exact
        assert exact is not None
        assert exact.verdict == "equal"
    rows = {row.name: row for row in family("decoder")[1].report.passes}
    assert (rows["shift-scale"].verdict, rows["shift-scale"].note) == ("equal", "")
    assert all(row.verdict == "not checked" for row in family("crossed")[1].report.passes)


def test_samples_are_held_out_and_counted() -> None:
    data = digits().report.data
    assert (data.calibration, data.held_out) == (48, 16)
    assert tiny(data=DataSettings(samples=8)).report.data.calibration == 6
    feeds = family("post")[1].report.data
    assert feeds.calibration + feeds.held_out == 24
    assert feeds.held_out == 6


def test_one_sample_is_judged_on_itself_and_the_report_says_so() -> None:
    one = tiny(data=DataSettings(samples=1)).report
    assert (one.data.calibration, one.data.held_out) == (1, 1)
    assert any("could not be divided" in hint for hint in one.hints)
    assert not any("could not be divided" in hint for hint in digits().report.hints)


def test_the_digits_get_kernels_and_stay_right() -> None:
    result = digits()
    assert_consistent(result.report, models.digits(), result.model)
    assert result.report.kernels == {"MatMulIntegerToFloat": 12}
    images, labels = onnxq.demo.load_test()
    found = open_session(result.model).run(images)["logits"].argmax(axis=1)
    assert (found == labels).mean() > 0.96
    assert result.met
    assert result.report.after.size_bytes < 0.4 * result.report.before.size_bytes


def test_the_passes_of_a_report_are_words_to_give_back() -> None:
    names = [row.name for row in digits().report.passes]
    assert [format_pass(parse_pass(name)) for name in names] == names
    assert any("skip=" in name or "plan=" in name or "per_token=" in name for name in names)


def test_migration_is_seen_in_the_channels() -> None:
    report = digits().report
    assert report.channels
    for picture in report.channels:
        assert len(picture.before) == len(picture.after)
    norms = [row for row in report.layers if row.channel_ratio_before and row.channel_ratio_before > 10]
    assert len(norms) >= 8
    assert all(row.channel_ratio_after < row.channel_ratio_before / 3 for row in norms)


def test_the_recipe_of_a_report_makes_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is known from the first run
    settings = parse_recipe(digits().report.recipe)
    again = optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings)
    assert to_bytes(again.model) == to_bytes(digits().model)
    assert again.report.after.sha256 == digits().report.after.sha256


def test_what_is_saved_is_what_was_measured(tmp_path: Path) -> None:
    result = tiny()
    result.save(tmp_path / "m.onnx")
    reread = load(tmp_path / "m.onnx")
    assert to_bytes(reread) == to_bytes(result.model)
    feeds = models.small_data(3)
    one, two = (open_session(model).run(feeds)["y"] for model in (reread, result.model))
    np.testing.assert_array_equal(one, two)


def test_random_data_is_told_about() -> None:
    settings = OptimizeSettings(**QUICK, target="qdq", data=DataSettings(samples=8))
    report = optimize(models.small(), "random", settings=settings).report
    assert any("Random data says nothing" in hint for hint in report.hints)
    assert "random" in report.data.source


def test_the_report_runs_the_data_through_no_further_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes ask before migration, within it and in front of rounding, and the plan behind migration."""
    seen: list[ir.Model] = []

    def counting(model: ir.Model, *given: Any, **options: Any) -> Any:
        seen.append(model)
        return collect(model, *given, **options, cache=False)

    monkeypatch.setattr(stage, "collect", counting)
    assert all(row.range_before and row.range_after for row in tiny().report.layers)
    assert len(seen) <= 4


def test_progress_names_every_stage() -> None:
    told: list[str] = []

    def note(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total or total == 0
        told.append(stage)

    optimize(
        models.small(),
        models.small_data(),
        settings=OptimizeSettings(**QUICK, target="qdq"),
        progress=note,
    )
    stages = list(dict.fromkeys(told))
    assert stages[0] == "reading the model and the data"
    assert stages.index("planning") < stages.index("judging on held-out data") < stages.index("timing")

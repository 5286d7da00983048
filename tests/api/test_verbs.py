"""The other verbs: what each takes, what it gives back, and that a model may come as anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq import api
from onnxq.api.calibration import KINDS
from onnxq.api.stage import Stage
from onnxq.contract import Contract
from onnxq.errors import CalibrationError, ModelError, UsageProblem
from onnxq.files import load, save
from onnxq.interop import GraphSurgeonPass
from onnxq.passes.clean.drop_identity import DropIdentity
from onnxq.passes.migrate.fold_gamma import FoldGamma
from onnxq.passes.migrate.shift_scale import ShiftScale
from onnxq.recipe import BenchSettings, DataSettings
from onnxq.statistics import Statistics
from tests.api import models
from tests.api.conftest import SPEEDUP
from tests.graphs import model_of, ops_of, outputs_of


def every_way(folder: Path) -> dict[str, Any]:
    model = models.small()
    save(model, folder / "m.onnx")
    proto = ir.to_proto(load(folder / "m.onnx"))
    return {
        "path": folder / "m.onnx",
        "text": str(folder / "m.onnx"),
        "proto": proto,
        "bytes": proto.SerializeToString(),
        "ir": model,
    }


def test_a_model_may_come_as_anything(tmp_path: Path) -> None:
    told = {}
    for name, given in every_way(tmp_path).items():
        applied = api.apply(given, [FoldGamma()], verify="never")
        inspected = api.inspect(given)
        calibrated = api.calibrate(given, models.small_data())
        compared = api.compare(given, applied.model, models.small_data())
        told[name] = (
            applied.report.after.sha256,
            inspected.model.sha256,
            inspected.counts,
            calibrated.model,
            compared.fidelity,
        )
    assert all(each == told["path"] for each in told.values())


@pytest.mark.parametrize("thing", [None, 3, {"graph": 1}, object()])
def test_what_is_no_model_is_refused(thing: object) -> None:
    for call in (lambda: api.inspect(thing), lambda: api.apply(thing, []), lambda: api.calibrate(thing, {})):
        with pytest.raises(UsageProblem) as caught:
            call()
        assert caught.value.slug == "not-a-model-object"


# apply


def test_apply_runs_what_it_is_told_in_that_order() -> None:
    result = api.apply(models.small(), [DropIdentity(), FoldGamma(guard=0.5)], threads=1)
    assert [row.name for row in result.report.passes] == ["drop-identity", "fold-gamma{guard=0.5}"]
    assert [row.changes > 0 for row in result.report.passes] == [False, True]
    assert result.report.verdict == "equal"
    feeds = models.small_data(5)
    old, new = outputs_of(models.small(), feeds)["y"], outputs_of(result.model, feeds)["y"]
    np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)


def test_apply_without_data_skips_what_needs_some() -> None:
    skipped = api.apply(models.small(), [ShiftScale()], verify="never").report.passes[0]
    assert skipped.changes == 0
    assert "calibration data" in skipped.note
    done = api.apply(models.small(), [ShiftScale()], calibration=models.small_data(), verify="never")
    assert done.report.passes[0].changes > 0
    assert done.report.verdict == "not checked"


def double(graph: Any) -> None:
    """A graphsurgeon pass that lies: it turns y into tanh(y)."""
    (last,) = [node for node in graph.nodes if node.op == "Relu"]
    last.op = "Tanh"


def nothing(graph: Any) -> None:
    """A graphsurgeon pass that gives nodes another name and changes no number."""
    for node in graph.nodes:
        node.name = f"{node.name}_seen"


def test_a_graphsurgeon_function_is_a_pass_like_any_other() -> None:
    pytest.importorskip("onnx_graphsurgeon")
    honest = GraphSurgeonPass(nothing, "nothing", Contract.BITWISE)
    liar = GraphSurgeonPass(double, "double", Contract.REASSOCIATES)
    result = api.apply(models.small(), [honest, liar, FoldGamma()], threads=1)
    rows = {row.name.partition("{")[0]: row for row in result.report.passes}
    assert rows["nothing"].verdict == "equal"
    assert rows["double"].verdict == "different"
    assert rows["double"].note
    assert "Relu" in ops_of(result.model)
    assert rows["fold-gamma"].changes > 0
    assert all(
        node.name.endswith("_seen") for node in result.model.graph if "Pass" not in node.metadata_props
    )
    assert result.report.verdict == "equal"


def test_apply_saves_what_it_made(tmp_path: Path) -> None:
    result = api.apply(models.small(), [FoldGamma()], verify="never")
    result.save(tmp_path / "a.onnx")
    assert api.inspect(tmp_path / "a.onnx").model.sha256 == result.report.after.sha256


# calibrate


def test_calibrate_keeps_every_kind_of_every_value_of_interest(tmp_path: Path) -> None:
    found = api.calibrate(models.small(), models.small_data(24), threads=1)
    assert set(found) == {"n", "t"}
    for statistic in found.values():
        assert statistic.count == 24, "nothing is held out"
        kinds = (statistic.channel, statistic.token, statistic.histogram, statistic.raw)
        assert len(KINDS) == len(kinds)
        assert all(each is not None for each in kinds)
        assert statistic.moments is None
    found.save(tmp_path / "s.npz")
    assert Statistics.read(tmp_path / "s.npz") == found


def test_calibrate_reads_as_told() -> None:
    found = api.calibrate(models.small(), models.small_data(24), data=DataSettings(samples=5))
    assert found["n"].count == 5


# compare


def test_a_model_is_equal_to_itself_and_different_from_another() -> None:
    one, data = models.small(), models.small_data(16)
    same = api.compare(one, models.small(), data, threads=1)
    assert (same.verdict, same.note) == ("equal", "")
    assert same.reference.sha256 == same.candidate.sha256
    assert (same.data.calibration, same.data.held_out) == (0, 16)
    folded = api.apply(one, [FoldGamma()], verify="never").model
    other = api.compare(one, folded, data)
    assert other.verdict == "different"
    assert other.fidelity[0].cosine_min > 0.99999
    assert other.fidelity[0].max_abs > 0


def test_models_with_other_inputs_are_not_compared() -> None:
    stranger = model_of("g (float[N,16] z) => (float[N,16] y) { y = Tanh(z) }")
    with pytest.raises(ModelError) as caught:
        api.compare(models.small(), stranger, models.small_data())
    assert caught.value.slug == "other-inputs"
    assert "z" in str(caught.value)


def test_outputs_of_another_shape_cannot_be_judged() -> None:
    wide = model_of("g (float[N,16] x) => (float[N,32] y) { y = Concat<axis = 1>(x, x) }")
    found = api.compare(models.small(), wide, models.small_data())
    assert found.verdict == "cannot judge"
    assert found.note


# inspect

COUNTS = {
    "post": {"linear": 12, "norm": 5, "activation": 2, "attention": 2, "embedding": 1},
    "pre": {"linear": 12, "norm": 5, "activation": 2, "attention": 2, "embedding": 1},
    "decoder": {"linear": 15, "norm": 5, "activation": 2, "attention": 2, "embedding": 1},
    "crossed": {"linear": 16, "norm": 5, "attention": 3},
}


@pytest.mark.parametrize("name", COUNTS)
def test_inspect_counts_the_parts_of_a_family(name: str) -> None:
    found = api.inspect(models.export(name))
    assert dict(found.counts) == COUNTS[name]
    assert len(found.parts) == sum(COUNTS[name].values())
    assert found.outliers == ()
    assert found.data is None
    assert {part.size for part in found.parts if part.kind == "norm"} == {"16 channels"}


def test_inspect_finds_planted_outliers() -> None:
    import onnxq.demo

    found = api.inspect(models.digits(), onnxq.demo.load_calibration(), threads=1)
    ratios = [row.channel_ratio for row in found.outliers]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 20
    assert found.outliers[0].kurtosis > 10
    assert all(row.max_abs > 0 for row in found.outliers)
    assert len({row.value for row in found.outliers}) == len(found.outliers) == 10
    assert any("shift-scale" in hint for hint in found.hints)
    assert found.data is not None
    assert found.data.held_out == 64


# bench, doctor


def test_bench_compares_with_the_first(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(models.small(), tmp_path / folder / "m.onnx")
    paths = [tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx"]
    found = api.bench(paths, BenchSettings(threads=1, shapes={"x": (4, 16)}, rounds=3))
    assert [(row.model, row.ratio) for row in found.timings] == [("a/m.onnx", None), ("b/m.onnx", SPEEDUP)]
    assert {row.shape for row in found.timings} == {"x=4x16"}
    assert (found.rounds, found.provider, found.machine.threads) == (3, "cpu", 1)
    twice = api.bench([paths[0], paths[0]], BenchSettings(threads=1))
    assert len({row.model for row in twice.timings}) == 2
    named = api.bench({"ours": models.small(), "theirs": models.small()})
    assert [row.model for row in named.timings] == ["ours", "theirs"]


def test_doctor_looks_at_everything_once() -> None:
    found = api.doctor()
    names = [check.name for check in found.checks]
    assert names[:2] == ["onnxruntime", "processor"]
    assert {"torch", "onnx_graphsurgeon", "tokenizers", "PIL"} <= set(names)
    assert all(check.status in ("ok", "warn", "fail") and check.finding for check in found.checks)
    assert all(
        check.way_out for check in found.checks if check.name in ("torch", "PIL") and check.status != "ok"
    )
    assert found.machine.onnxruntime


# stage


def test_what_is_held_out_is_not_calibrated_with() -> None:
    stage = Stage.open(models.small(), models.small_data(20), DataSettings(), threads=1)
    assert stage.separate
    held, used = set(stage.held_out.indices), set(stage.calibration.indices)
    assert not held & used
    assert len(held | used) == 20
    everything = Stage.undivided(models.small(), models.small_data(20), None, threads=1)
    assert len(everything.calibration) == len(everything.held_out) == 20


def test_data_that_does_not_fit_is_refused_by_every_verb() -> None:
    wrong = {"x": np.zeros((4, 5), np.float32)}
    for call in (
        lambda: api.optimize(models.small(), wrong),
        lambda: api.calibrate(models.small(), wrong),
        lambda: api.inspect(models.small(), wrong),
        lambda: api.compare(models.small(), models.small(), wrong),
        lambda: api.apply(models.small(), [FoldGamma()], calibration=wrong),
    ):
        with pytest.raises(CalibrationError) as caught:
            call()
        assert caught.value.slug == "wrong-shape"

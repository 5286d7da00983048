"""`optimize` from end to end: what comes out computes, is quantized as reported, and the same every time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxq.demo
from onnxq.api import OptimizeResult, optimize, stage
from onnxq.calibration import collect
from onnxq.contract import Reject
from onnxq.errors import UsageProblem
from onnxq.files import load, to_bytes
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import constant_of, nodes
from onnxq.passes.quantize.ranges import RangeMethod
from onnxq.recipe import DataSettings, OptimizeSettings, format_pass, parse_pass, parse_recipe
from onnxq.report.results import Report
from onnxq.runtime import kernels_of, open_session, optimized_graph
from onnxq.targets import TARGETS
from onnxq.targets.costs import KernelCosts
from tests.api import models
from tests.graphs import check, model_of, ops_of

FAMILIES = {
    "post": ("post", 18, True, "never"),
    "post by script": ("post", 14, False, "never"),
    "pre": ("pre", 23, True, "never"),
    "decoder": ("decoder", 18, True, "each"),
    "crossed": ("crossed", 18, True, "never"),
}
QUICK = {"threads": 1, "effort": "fast", "verify": "never"}


@cache
def family(name: str) -> tuple[ir.Model, OptimizeResult]:
    kind, opset, dynamo, verify = FAMILIES[name]
    model = models.export(kind, opset, dynamo)
    settings = OptimizeSettings(**(QUICK | {"target": "qdq", "verify": verify}))
    return model, optimize(model, models.data_for(kind), settings=settings)


@cache
def digits() -> OptimizeResult:
    settings = OptimizeSettings(threads=1, effort="fast", target="x86-vnni")
    return optimize(onnxq.demo.model_path(), onnxq.demo.load_calibration(), settings=settings)


def linears_of(model: ir.Model) -> list[Linear]:
    return [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]


def tiny(**given: Any) -> OptimizeResult:
    settings = OptimizeSettings(**(QUICK | {"target": "qdq"} | given))
    return optimize(models.small(), models.small_data(), settings=settings)


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


def test_linears_without_names_are_told_apart() -> None:
    settings = OptimizeSettings(**QUICK, target="x86-vnni")
    result = optimize(models.digits_without_names(), onnxq.demo.load_calibration(), settings=settings)
    assert [row.decision for row in result.report.layers] == [row.decision for row in digits().report.layers]
    assert [row.columns for row in result.report.layers] == [row.columns for row in digits().report.layers]
    assert len({row.name for row in result.report.layers}) == len(result.report.layers)


@pytest.mark.parametrize(("keep", "decisions"), [((), ["int8 static", "float"]), (("one",), ["float"] * 2)])
def test_linears_of_one_name_are_told_apart(keep: tuple[str, ...], decisions: list[str]) -> None:
    random = np.random.default_rng(0)
    arrays = {"w": random.normal(size=(16, 32)).astype("f"), "v": random.normal(size=(32, 8)).astype("f")}
    model = model_of("g (float[N,16] x) => (float[N,8] y) { m = MatMul(x, w) y = MatMul(m, v) }", **arrays)
    for node in model.graph:
        node.name = "one"
    settings = OptimizeSettings(**QUICK, target="qdq", keep_float=keep)
    result = optimize(model, models.small_data(), settings=settings)
    assert [row.decision for row in result.report.layers] == decisions
    assert [row.range_before is not None for row in result.report.layers] == [True, True]
    assert result.report.layers[0].range_before != result.report.layers[1].range_before
    assert ops_of(result.model).count("MatMul") == 2
    assert ops_of(result.model).count("QuantizeLinear") == decisions.count("int8 static")
    assert [node.name for node in model.graph] == ["one", "one"]


@pytest.mark.parametrize("name", ["arm-dot", "qdq", "qdq-symmetric"])
def test_activations_are_of_the_type_that_the_target_wants(name: str) -> None:
    settings = OptimizeSettings(**(QUICK | {"target": name}))
    result = optimize(models.digits(), onnxq.demo.load_calibration(), settings=settings)
    rounded = [node for node in nodes(result.model) if node.op_type == "QuantizeLinear"]
    zeros = [constant_of(node.inputs[2]) for node in rounded]
    assert len(zeros) >= 6
    assert {str(zero.dtype) for zero in zeros} == {TARGETS[name].activation_type}
    assert all(zero == 0 for zero in zeros) == TARGETS[name].activation_symmetric
    assert {node.domain for node in nodes(result.model)} <= {"", "com.microsoft"}
    assert ({node.domain for node in nodes(result.model)} == {""}) == (TARGETS[name].format == "qdq")
    assert result.report.fidelity[0].cosine_min > 0.99


def test_four_bits_are_chosen_by_bytes_and_stay_close() -> None:
    settings = OptimizeSettings(**QUICK, target="x86-vnni", weights="int4")
    result = optimize(onnxq.demo.model_path(), onnxq.demo.load_calibration(), settings=settings)
    forms = {row.decision.partition(",")[0] for row in result.report.layers}
    assert "int4 blocks" in forms
    assert forms <= {"int4 blocks", "int8 blocks", "float"}
    bits = [node.attributes["bits"].value for node in nodes(result.model) if node.op_type == "MatMulNBits"]
    assert sorted(bits) == sorted(
        int(row.decision[3]) for row in result.report.layers if row.decision != "float"
    )
    assert result.report.fidelity[0].cosine_mean > 0.98
    assert 'weights = "int4"' in result.report.recipe


@pytest.mark.parametrize("given", [{"format": "qdq"}, {"target": "qdq"}])
def test_four_bits_are_refused_where_nothing_multiplies_them(given: dict[str, str]) -> None:
    with pytest.raises(UsageProblem) as problem:
        OptimizeSettings(weights="int4", **given)  # type: ignore[arg-type]
    assert problem.value.slug == "int4-as-qdq"


@pytest.mark.parametrize(
    "form", [{"format": "qdq", "target": "x86-vnni"}, {"format": "kernel", "target": "qdq"}]
)
def test_qdq_is_standard_onnx_alone(form: dict[str, str]) -> None:
    settings = OptimizeSettings(**QUICK, **form)
    result = optimize(onnxq.demo.model_path(), onnxq.demo.load_calibration(), settings=settings)
    assert {node.domain for node in nodes(result.model)} == {""}
    assert result.report.kernels == {"MatMulIntegerToFloat": 12}
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    assert result.report.fidelity[0].cosine_min > 0.999


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [(("the_m",), 1), (("the_*",), 2), (("the_m", "the_y"), 2), (("nothing", "m"), 0), (("*m",), 1)],
)
def test_patterns_keep_linears_float(patterns: tuple[str, ...], kept: int) -> None:
    result = tiny(keep_float=patterns)
    told = [row for row in result.report.layers if row.reason == "told to stay float"]
    assert len(told) == kept == ops_of(result.model).count("MatMul") - (2 - kept)


@pytest.mark.parametrize(("patterns", "kept"), [((), False), (("*ids_to*",), True), (("other",), False)])
def test_patterns_keep_embeddings_float(patterns: tuple[str, ...], kept: bool) -> None:
    table = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    model = model_of(
        "g (int64[N] ids) => (float[N,16] y) { e = Gather(table, ids) y = Tanh(e) }", table=table
    )
    next(iter(model.graph)).name = "the_ids_to_rows"
    settings = OptimizeSettings(**QUICK, target="qdq", keep_float=patterns)
    data = {"ids": np.arange(64)}
    result = optimize(model, data, settings=settings)
    assert ("table" in result.model.graph.initializers) == kept


def test_passes_of_the_user_are_all_that_runs() -> None:
    result = tiny(passes=("fold-gamma{guard=0.5}", "quantize-linears{form=qdq, method=mse}"))
    rows = {row.name: row for row in result.report.passes}
    assert list(rows) == ["fold-gamma{guard=0.5}", "quantize-linears{form=qdq,method=mse}"]
    assert all(row.changes for row in rows.values()), [row.note for row in rows.values()]
    assert result.report.layers == ()
    assert sum(result.report.kernels.values()) == 2


@pytest.mark.parametrize("ranges", get_args(RangeMethod))
def test_every_range_method_works_at_every_effort(ranges: str) -> None:
    for effort in ("fast", "balanced"):
        result = tiny(ranges=ranges, effort=effort)
        quantizing = [row.name for row in result.report.passes if row.name.startswith("quantize-linears")]
        assert len(quantizing) == 1
        assert ("method" in quantizing[0]) == (ranges != "minmax")
        assert result.report.fidelity[0].cosine_mean > 0.99


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


def test_every_threads_and_seed_is_honoured() -> None:
    result = tiny(threads=1, seed=3)
    assert result.report.machine.threads == 1
    assert parse_recipe(result.report.recipe).seed == 3


def test_the_plan_follows_the_shapes_that_are_named() -> None:
    """One row takes as long as reading the weights and the calls, of which blocks need one and others two."""
    random = np.random.default_rng(0)
    base = model_of(
        "g (float[N,256] x) => (float[N,256] y) { m = MatMul(x, w) t = Tanh(m) y = MatMul(t, v) }",
        w=random.normal(size=(256, 256), scale=1 / 16).astype(np.float32),
        v=random.normal(size=(256, 256), scale=1 / 16).astype(np.float32),
    )
    data = {"x": random.normal(size=(64, 256)).astype(np.float32)}
    given = QUICK | {"target": "x86-vnni", "costs": vars(KernelCosts(call=50.0))}
    few, many = (
        optimize(base, data, settings=OptimizeSettings(**given, shapes={"x": (rows, 256)})).report.layers
        for rows in (1, 1024)
    )
    assert {row.decision for row in few} == {"int8 blocks"}
    assert {row.decision for row in many} == {"int8 static"}


def test_a_shape_that_fits_no_input_is_refused_before_the_work() -> None:
    told: list[str] = []
    with pytest.raises(UsageProblem, match="no input named 'words'"):
        optimize(
            models.small(),
            models.small_data(),
            settings=OptimizeSettings(**QUICK, shapes={"words": (1, 8)}),
            progress=lambda stage, done, total: told.append(stage),
        )
    assert told == ["reading the model and the data"]

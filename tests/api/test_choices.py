"""What a user decides about `optimize`: by names of nodes, passes, ranges."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

import onnxq.demo
from onnxq.api import optimize
from onnxq.passes.quantize.ranges import RangeMethod
from onnxq.recipe import OptimizeSettings, parse_recipe
from tests.api import models
from tests.api.optimized import QUICK, digits, tiny
from tests.graphs import model_of, ops_of


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


def test_every_threads_and_seed_is_honoured() -> None:
    result = tiny(threads=1, seed=3)
    assert result.report.machine.threads == 1
    assert parse_recipe(result.report.recipe).seed == 3

"""The structure of timings. Nothing here says how fast anything is."""

from __future__ import annotations

import linears
import numpy as np
import onnx_ir as ir
import pytest
import runtime_graphs

from onnxq.errors import BackendError, UsageProblem
from onnxq.runtime import SessionSettings
from onnxq.runtime.timing import Contender, measure_latency, profile

QUICK = {"rounds": 2, "seconds": 0.02}


def test_two_models_by_name_against_the_first(tmp_path):
    path = tmp_path / "b.onnx"
    path.write_bytes(ir.to_proto(linears.kernel()).SerializeToString())
    x = np.zeros((1, 4, linears.K), np.float32)
    found = measure_latency({"float": linears.qdq(), "kernel": path}, {"x": x}, **QUICK)
    assert list(found) == ["float", "kernel"]
    assert found["float"].speedup_least == found["float"].speedup_median == 1.0
    for each in found.values():
        assert each.processes == len(each.process_medians_ms) == 2
        assert each.runs >= 2 * 5
        assert 0 < each.least_ms <= min(each.process_medians_ms)
        assert min(each.process_medians_ms) <= each.median_ms <= max(each.process_medians_ms)
        assert each.spread >= 0
        assert each.quartiles_ms >= 0
        assert each.load_ms > 0
        assert each.peak_rss_mb > 10
        assert each.threads == 1
    kernel = found["kernel"]
    assert kernel.speedup_least == pytest.approx(found["float"].least_ms / kernel.least_ms)
    assert kernel.speedup_median == pytest.approx(found["float"].median_ms / kernel.median_ms)


def test_rounds_alternate_and_each_is_a_process_of_its_own(monkeypatch):
    from onnxq.runtime import timing

    order = []

    def recorded(path, settings, feeds, seconds, timeout):
        order.append((path, settings.disabled_optimizers, settings.threads))
        return {"times_ns": np.array([1_000_000]), "load_ms": 1.0, "peak_rss_mb": 1.0}

    monkeypatch.setattr(timing, "_time_in_fresh_process", recorded)
    second = Contender("b.onnx", SessionSettings(disabled_optimizers=("SkipLayerNormFusion",), threads=9))
    measure_latency({"a": "a.onnx", "b": second}, {}, rounds=3, threads=2)
    a, b = ("a.onnx", (), 2), ("b.onnx", ("SkipLayerNormFusion",), 2)
    assert order == [a, b, b, a, a, b]


def test_random_feeds_of_a_given_shape():
    found = measure_latency({"m": runtime_graphs.relu()}, shapes={"x": (3, 4)}, rounds=1, seconds=0.01)
    assert found["m"].processes == 1
    with pytest.raises(UsageProblem, match="no input named 'q'"):
        measure_latency({"m": runtime_graphs.relu()}, shapes={"q": (3, 4)}, rounds=1, seconds=0.01)


def test_a_model_that_does_not_run():
    with pytest.raises(BackendError) as caught:
        measure_latency({"m": runtime_graphs.relu()}, {"x": np.zeros((2, 3), "f")}, **QUICK)
    assert caught.value.slug == "bad-feed"


def test_nothing_to_time():
    with pytest.raises(UsageProblem):
        measure_latency({})
    with pytest.raises(UsageProblem):
        measure_latency({"m": runtime_graphs.relu()}, rounds=0)


def test_profile_adds_up_by_operator():
    found = profile(linears.qdq(copies=2), {"x": np.zeros((1, 4, linears.K), np.float32)}, runs=3)
    assert set(found.by_op) == {"QuantizeLinear", "MatMulIntegerToFloat"}
    assert sorted(each.node for each in found.nodes if each.op == "MatMulIntegerToFloat") == ["lin0", "lin1"]
    assert [each.us for each in found.nodes] == sorted((each.us for each in found.nodes), reverse=True)
    assert found.us == pytest.approx(sum(each.us for each in found.nodes))
    assert {each.provider for each in found.nodes} == {"CPUExecutionProvider"}


def test_profile_counts_every_turn_of_a_loop():
    body = "body (int64 i, bool c, float[4] a) => (bool d, float[4] b) { d = Identity(c)\n b = Exp(a) }"
    text = f"g (float[4] x) => (float[4] y) {{ y = Loop<body = {body}>(trips, , x) }}"
    found = profile(runtime_graphs.model(text, trips=np.int64(5)), {"x": np.zeros(4, "f")}, runs=2)
    assert "Exp" in found.by_op

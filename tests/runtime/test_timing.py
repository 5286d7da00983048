"""The structure of timings. Nothing here says how fast anything is."""

from __future__ import annotations

import itertools
import time

import linears
import numpy as np
import onnx_ir as ir
import pytest
import runtime_graphs

from onnxq.errors import BackendError, UsageProblem
from onnxq.runtime import PROVIDERS, Contender, SessionSettings, Watch, measure_latency, open_contest, profile
from onnxq.runtime.latency import STEADY_ROUNDS, compared, interval_of, latency_of
from onnxq.runtime.places import Here
from onnxq.runtime.profiling import profile_of
from onnxq.runtime.stopwatch import time_runs

QUICK = {"rounds": 2, "seconds": 0.02}
FIGURES = {"load_ms": 1, "peak_rss_mb": 1, "loaded_mb": 1, "settled": True, "io": "host"}


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


class Clock(Here):
    """A place where no time passes: it answers at once, and remembers what it was asked."""

    def __init__(self, *medians_ms):
        self.jobs = []
        self._medians = itertools.cycle(medians_ms or [1.0])

    def time(self, job, limit):
        self.jobs.append(job)
        times = np.array([next(self._medians) * 1e6], np.int64)
        return {
            "times_ns": times,
            "load_ms": 1.0,
            "peak_rss_mb": 9.0,
            "loaded_mb": 4.0,
            "settled": True,
            "io": "host",
        }


def test_rounds_alternate_and_settings_of_a_contender_are_its_own():
    clock = Clock()
    second = Contender("b.onnx", SessionSettings(disabled_optimizers=("SkipLayerNormFusion",), threads=9))
    with open_contest({"a": "a.onnx", "b": second}, Watch(2, 3, processors=(0,)), clock) as contest:
        contest.measure({"a": {}, "b": {}})
    asked = [(job["model"], job["disabled_optimizers"], job["threads"], job["cpus"]) for job in clock.jobs]
    a, b = ("a.onnx", [], 2, [0]), ("b.onnx", ["SkipLayerNormFusion"], 2, [0])
    assert asked == [a, b, b, a, a, b]


@pytest.mark.parametrize(
    ("times", "rounds", "verdict"),
    [
        ((2.0, 1.0), 5, "faster"),
        ((1.0, 2.0), 5, "slower"),
        ((1.0, 1.0), 5, "not resolved"),
        # fast and slow processes of both kinds in turn: whichever leads, the next round has it the other way
        ((2.0, 1.0, 2.0, 1.0), 4, "not resolved"),
        ((2.0, 1.0), 2, "not resolved"),
        ((2.0, 1.0), 3, "faster"),
        # the first is slower in each of the rounds, and one of its processes faster than one of the second's
        ((2.0, 1.9, 4.0, 4.1), 4, "not resolved"),
        ((2.0, 1.9, 4.0, 4.1), 5, "faster"),
    ],
)
def test_a_difference_is_one_where_all_rounds_agree(times, rounds, verdict):
    first, second = times[:2]
    clock = Clock(*(times if len(times) > 2 else (first, second, second, first)))
    with open_contest({"a": "a.onnx", "b": "b.onnx"}, Watch(rounds=rounds), clock) as contest:
        found = contest.measure({"a": {}, "b": {}})
    assert found["a"].verdict == ""
    assert found["b"].verdict == verdict
    assert found["b"].speedup_low <= found["b"].speedup_high


def test_the_interval_of_a_median_leaves_odd_ones_out_where_there_are_enough():
    assert interval_of([3.0, 1.0, 2.0, 9.0, 2.5]) == (1.0, 9.0)
    assert interval_of([0.1, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 99.0]) == (1.0, 1.5)


@pytest.mark.parametrize(
    ("rounds", "verdict"), [(STEADY_ROUNDS - 1, "not resolved"), (STEADY_ROUNDS, "slower")]
)
def test_one_odd_round_keeps_few_others_from_telling_and_not_many(rounds, verdict):
    def timed(milliseconds):
        return latency_of(1, [{"times_ns": [ms * 1e6] * 5, **FIGURES} for ms in milliseconds])

    found = compared({"a": timed([1.3, *[1.0] * (rounds - 1)]), "b": timed([1.2] * rounds)})
    assert found["b"].verdict == verdict


def test_random_feeds_of_a_given_shape():
    found = measure_latency({"m": runtime_graphs.relu()}, shapes={"x": (3, 4)}, rounds=1, seconds=0.01)
    assert found["m"].processes == 1
    with pytest.raises(UsageProblem, match="no input named 'q'"):
        measure_latency({"m": runtime_graphs.relu()}, shapes={"q": (3, 4)}, rounds=1, seconds=0.01)


def test_a_model_that_does_not_run():
    with pytest.raises(BackendError) as caught:
        measure_latency({"m": runtime_graphs.relu()}, {"x": np.zeros((2, 3), "f")}, **QUICK)
    assert caught.value.slug == "bad-feed"


def test_processors_that_are_not_there():
    models = {"m": runtime_graphs.relu()}
    with (
        pytest.raises(BackendError, match="4321") as caught,
        open_contest(models, Watch(processors=(4321,))) as it,
    ):
        it.measure(it.feeds(None))
    assert caught.value.slug == "no-processor"


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


def test_a_trace_has_each_run_and_the_one_before_them():
    with open_contest({"m": runtime_graphs.relu()}, Watch()) as contest:
        entries = contest.trace("m", contest.feeds(None)["m"], 4)
    assert [entry["op"] for entry in entries] == ["Neg", "Relu"] * 5


def test_the_best_run_but_the_first_counts():
    entries = [
        {"node": node, "op": "OpenVINO_7", "provider": "p", "index": index, "us": us}
        for first, second in [(1, 9), (4, 5), (3, 7)]
        for index, (node, us) in enumerate([("a", first), ("b", second), ("b", 1)])
    ]
    found = profile_of(entries, 2)
    assert [(node.node, node.us) for node in found.nodes] == [("b", 5), ("a", 3), ("b", 1)]
    assert found.by_op == {"OpenVINO": 9}
    assert found.by_provider == {"p": 3}


def test_inputs_and_outputs_stay_on_a_device(monkeypatch):
    from onnxq.runtime.remote import stopwatch

    monkeypatch.setitem(stopwatch._DEVICES, PROVIDERS["cpu"], "cpu")  # the one device that is everywhere
    with open_contest(
        {"m": runtime_graphs.relu()}, Watch(seconds=0.02, processors=()), InThisProcess()
    ) as contest:
        found = contest.measure(contest.feeds(None))["m"]
    assert found.io == "device"
    assert found.runs >= 3 * 5


class InThisProcess(Here):
    def time(self, job, limit):
        return time_runs(job)


def test_warming_up_ends_once_runs_are_no_faster():
    from onnxq.runtime.remote import stopwatch

    def steps(costs):
        costs = iter(costs)
        return lambda: time.sleep(next(costs))

    assert stopwatch._warm_up(steps([0.001] * 500), 0.005, 0.5)[1]
    count, settled = stopwatch._warm_up(steps(0.03 * 0.9**i for i in range(99)), 0.001, 0.15)
    assert not settled or count < 2 * stopwatch._WINDOW
    assert stopwatch._warm_up(steps([0.02] * 9), 0.0, 0.0)[0] == 2


def test_element_types_that_numpy_lacks():
    casts = "y = Cast<to=1>(x)\n z = Cast<to=1>(k)"
    half = f"g (bfloat16[n, 3] x, int4[4] k) => (float[n, 3] y, float[4] z) {{ {casts} }}"
    found = measure_latency({"m": runtime_graphs.model(half)}, rounds=1, seconds=0.01)
    assert found["m"].runs >= 5


def test_profile_counts_every_turn_of_a_loop():
    body = "body (int64 i, bool c, float[4] a) => (bool d, float[4] b) { d = Identity(c)\n b = Exp(a) }"
    text = f"g (float[4] x) => (float[4] y) {{ y = Loop<body = {body}>(trips, , x) }}"
    found = profile(runtime_graphs.model(text, trips=np.int64(5)), {"x": np.zeros(4, "f")}, runs=2)
    assert "Exp" in found.by_op

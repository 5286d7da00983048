from __future__ import annotations

import os
import signal

import ml_dtypes
import numpy as np
import pytest
import runtime_crashers as crashers
import runtime_graphs as graphs

from onnxq.errors import BackendError, UsageProblem
from onnxq.runtime import SessionSettings, delivery, isolate
from onnxq.runtime.isolate import Worker, run_isolated

X = np.arange(-4, 4, dtype=np.float32).reshape(2, 4)


def test_runs_as_in_this_process():
    found = run_isolated(graphs.relu(), {"x": X})
    np.testing.assert_array_equal(found["y"], np.maximum(-X, 0))


def test_one_process_serves_many_sessions():
    with Worker() as worker:
        first, second = worker.open(graphs.relu()), worker.open(graphs.relu(), SessionSettings(taps=("h",)))
        number = worker.call(crashers.process_number)
        assert set(first.run({"x": X})) == {"y"}
        assert set(second.run({"x": X})) == {"y", "h"}
        np.testing.assert_array_equal(second.run({"x": X}, ["h"])["h"], -X)
        assert worker.call(crashers.process_number) == number != os.getpid()
        assert first.inputs[0].shape == ("n", 4)
        assert first.inputs[0].dtype == np.float32


def test_large_weights_go_to_the_worker_beside_the_graph(monkeypatch):
    text = "g (float[n, 64] x) => (float[n, 64] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((64, 64)).astype("f") for name in "wv"}
    x = {"x": rng.standard_normal((3, 64)).astype("f")}
    expected = run_isolated(graphs.model(text, **weights), x, SessionSettings(taps=("h",)))
    monkeypatch.setattr(delivery, "SMALLEST_DETACHED", 1000)
    monkeypatch.setattr(delivery, "SMALLEST_WEIGHT", 1000)
    sent = []
    monkeypatch.setattr(isolate, "pack", lambda *given: sent.append(delivery.pack(*given)) or sent[-1])
    found = run_isolated(graphs.model(text, **weights), x, SessionSettings(taps=("h",)))
    assert set(sent[0].weights) == {"w", "v"}
    assert found.keys() == expected.keys() == {"y", "h"}
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def test_sessions_that_nobody_holds_are_let_go():
    with Worker() as worker:
        kept = worker.open(graphs.relu())
        closed = worker.open(graphs.relu())
        closed.close()
        worker.open(graphs.relu())  # dropped at once
        kept.run({"x": X})
        with pytest.raises(BackendError, match="session is closed"):
            closed.run({"x": X})
        with pytest.raises(BackendError, match="KeyError"):
            worker.ask("run", {"number": 3, "feeds": {"x": X}, "outputs": None})
        assert set(kept.run({"x": X})) == {"y"}


def test_every_kind_of_value_crosses_the_pipe():
    values = {
        "none": None,
        "nested": [1, 2.5, "word", [True, None]],
        "bytes": b"\x00\xff",
        "empty": np.zeros((0, 3), np.int64),
        "scalar": np.array(3.5),
        "strided": np.arange(12).reshape(3, 4).T,
        "half": np.ones(3, ml_dtypes.bfloat16),
        "strings": np.array([["a", "ä"]], dtype=object),
        7: "a key that is a number",
    }
    with Worker() as worker:
        back = worker.call(crashers.echo, value=values)
    assert back.keys() == values.keys()
    for key, value in values.items():
        if isinstance(value, np.ndarray):
            assert back[key].dtype == value.dtype
            np.testing.assert_array_equal(back[key], value)
        else:
            assert back[key] == value


def test_an_argument_that_cannot_be_sent_leaves_the_worker_usable():
    with Worker() as worker:
        with pytest.raises(TypeError, match="cannot be sent"):
            worker.call(crashers.echo, value=object())
        assert worker.call(crashers.echo, value=1) == 1


def test_crash_becomes_an_error_and_the_next_call_works():
    with Worker() as worker:
        session = worker.open(graphs.relu())
        with pytest.raises(BackendError) as caught:
            worker.call(crashers.abort)
        assert caught.value.slug == "crashed"
        assert signal.SIGABRT.name in caught.value.message
        assert worker.call(crashers.echo, value=1) == 1
        with pytest.raises(BackendError, match="has ended"):
            session.run({"x": X})
        session.close()


def test_timeout_stops_the_worker():
    with Worker(timeout=30) as worker:
        worker.call(crashers.echo, value=1)
        worker.timeout = 0.2
        with pytest.raises(BackendError) as caught:
            worker.call(crashers.sleep, seconds=60)
        assert caught.value.slug == "timeout"
        worker.timeout = 30
        assert worker.call(crashers.echo, value=2) == 2


def test_memory_limit():
    with Worker(memory_mb=200) as worker:
        assert worker.call(crashers.allocate, megabytes=20) > 0
        with pytest.raises(BackendError) as caught:
            worker.call(crashers.allocate, megabytes=1000)
        assert caught.value.slug == "out-of-memory"


def test_model_that_needs_more_memory_than_allowed():
    huge = graphs.model("g (int64[1] n) => (float[m] y) { y = ConstantOfShape(n) }")
    with Worker(memory_mb=300) as worker:
        session = worker.open(huge)
        assert session.run({"n": np.array([10])})["y"].shape == (10,)
        with pytest.raises(BackendError) as caught:
            session.run({"n": np.array([1 << 30])})
        assert caught.value.slug == "out-of-memory"


def test_noise_on_standard_output_does_not_break_the_frames():
    with Worker() as worker:
        assert worker.call(crashers.print_noise) == "still in step"


def test_errors_keep_their_class():
    with Worker() as worker:
        with pytest.raises(UsageProblem, match="no value named 'nope'"):
            worker.open(graphs.relu(), SessionSettings(taps=("nope",)))
        with pytest.raises(BackendError) as caught:
            worker.open(graphs.relu()).run({"z": X})
        assert caught.value.slug == "bad-feed"
        with pytest.raises(BackendError, match="KeyError") as caught:
            worker.call(crashers.fail)
        assert caught.value.slug == "worker-failed"

"""A file runs in a process of its own: it answers, it is timed, and what it says when it breaks is heard."""

from __future__ import annotations

import io

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks import judging
from benchmarks.contestants import Runtime
from benchmarks.export import BenchmarkError
from benchmarks.judging import Answering, Judge
from benchmarks.rounds import Entry, time_round
from benchmarks.running import receive, send
from benchmarks.subjects import SUBJECTS
from benchmarks.tasks import Task
from onnxq.files import save


@pytest.fixture
def doubling(tmp_path):
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n"]))
    node = ir.node("Add", [x, x])
    node.outputs[0].name = "y"
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 17}, name="g")
    save(ir.Model(graph, ir_version=9), tmp_path / "model.onnx")
    return Entry(tmp_path / "model.onnx", Runtime("onnxruntime"))


def test_arrays_arrive_as_they_were_sent():
    pipe = io.BytesIO()
    send(pipe, {"a": np.arange(3), "b": np.zeros((0, 2), np.float32)})
    send(pipe, {})
    pipe.seek(0)
    first = receive(pipe)
    np.testing.assert_array_equal(first["a"], [0, 1, 2])
    assert (first["b"].shape, first["b"].dtype) == ((0, 2), np.float32)
    assert receive(pipe) == {}
    assert receive(pipe) is None


def test_model_answers_batch_after_batch_and_takes_only_its_inputs(doubling):
    with Answering(doubling) as run:
        for size in (2, 3):
            feeds = {"x": np.full(size, 2.0, np.float32), "mask": np.ones(size)}
            np.testing.assert_array_equal(run(feeds), np.full(size, 4.0))


def test_model_that_breaks_is_told_by_its_last_word(doubling):
    with Answering(doubling) as run, pytest.raises(BenchmarkError, match="x"):
        run({"y": np.zeros(2, np.float32)})


def test_model_is_timed_in_its_runtime(doubling):
    found = time_round({"a": doubling}, {"x": np.ones(4, np.float32)}, 0.02, backwards=False)["a"]
    assert found["runs"] >= 5
    assert 0 < found["least_ms"] <= found["median_ms"]
    assert found["peak_rss_mb"] > 1


def test_nothing_is_judged_twice(monkeypatch, doubling, tmp_path):
    asked = []

    def answer(run):
        asked.append(run)
        return {"y": run({"x": np.ones(2, np.float32)})}

    task = Task("minilm", answer, lambda old, new: {"difference": float(np.abs(old["y"] - new["y"]).max())})
    monkeypatch.setitem(judging.TASKS, "sentences", task)
    monkeypatch.setattr(judging, "judgement_path", lambda path, *given: tmp_path / "judged" / path.stem)
    monkeypatch.setattr(type(SUBJECTS["vit"]), "path", doubling.model)
    judge = Judge(SUBJECTS["minilm-dynamo"], ["sentences"])
    assert judge(doubling) == judge(doubling) == {"sentences": {"difference": 0.0}}
    assert len(asked) == 2  # the original once, the candidate once

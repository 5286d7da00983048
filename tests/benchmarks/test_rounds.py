"""Rounds of timing add up; every file is timed by a process of its own."""

from __future__ import annotations

import json

import pytest

from benchmarks import rounds
from benchmarks.contestants import Runtime
from benchmarks.rounds import Entry, append, ratio_by_rounds, summarize, time_round


def process(least: float, median: float, **more: float):
    return {"least_ms": least, "median_ms": median, "runs": 7, "load_ms": 3.0, "peak_rss_mb": 50.0, **more}


def test_processes_are_summed_up_by_their_best_run_and_middle_median():
    found = summarize([process(9, 10), process(8, 20, load_ms=2.0), process(9.5, 12, peak_rss_mb=60.0)])
    assert (found["least_ms"], found["median_ms"], found["runs"]) == (8, 12, 21)
    assert found["spread"] == pytest.approx(10 / 12)
    assert (found["load_ms"], found["peak_rss_mb"]) == (2.0, 60.0)


def test_ratios_follow_every_round():
    rows = {"fp32": {}, "a": {}}
    append(rows, "1x128", {"fp32": process(20, 22), "a": process(10, 11)})
    append(rows, "1x128", {"fp32": process(18, 20), "a": process(6, 9)})
    found = json.loads(json.dumps(rows))["a"]["latency"]["1x128"]
    assert found["speedup_least"] == 3
    assert found["speedup_median"] == pytest.approx(21 / 10)
    assert len(found["processes"]) == 2


def test_process_that_fails_is_told_and_spoils_no_figure():
    rows = {"fp32": {}, "a": {}}
    append(rows, "1x128", {"fp32": process(20, 22), "a": process(10, 11)})
    append(rows, "1x128", {"fp32": process(20, 22), "a": {"failure": "Killed"}})
    assert rows["a"]["failure"] == "Killed"
    assert rows["a"]["latency"]["1x128"]["least_ms"] == 10


def test_every_second_round_goes_backwards(monkeypatch, tmp_path):
    order = []
    monkeypatch.setattr(rounds, "_time_one", lambda entry, more: order.append(entry.model.name) or {})
    entries = {name: Entry(tmp_path / name, Runtime("onnxruntime")) for name in "abc"}
    time_round(entries, {}, 1.0, backwards=False)
    time_round(entries, {}, 1.0, backwards=True)
    assert order == ["a", "b", "c", "c", "b", "a"]


def test_model_that_does_not_open_fails_alone(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    entries = {"a": Entry(tmp_path / "model.onnx", Runtime("onnxruntime"))}
    assert "INVALID_PROTOBUF" in time_round(entries, {}, 0.01, backwards=False)["a"]["failure"]


def test_rounds_are_compared_where_both_took_part():
    rows = {"fp32": {}, "a": {}}
    append(rows, "s", {"fp32": process(20, 20)})
    append(rows, "s", {"fp32": process(30, 30), "a": process(15, 15)})
    append(rows, "s", {"fp32": process(10, 10), "a": process(8, 8)})
    append(rows, "s", {"fp32": process(10, 10), "a": process(7, 7)})
    fp32, ours = (rows[name]["latency"]["s"] for name in ("fp32", "a"))
    assert [each["round"] for each in ours["processes"]] == [1, 2, 3]
    assert ratio_by_rounds(ours, fp32) == pytest.approx(0.7)
    assert ratio_by_rounds(ours, {"least_ms": 1.0}) is None
    assert ratio_by_rounds(summarize(ours["processes"][:1]), summarize(fp32["processes"][2:])) is None

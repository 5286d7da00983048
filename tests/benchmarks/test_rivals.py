"""Building contestants: the command of each, its cost, and why there is none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rivals, subjects
from benchmarks.measure import Finished

REPORT = '{"kernels": {"Gemm": 3}, "layers": []}'
SUCCESS = Finished(code=0, seconds=3.14159, peak_mb=512.4, output=REPORT, errors="")


@pytest.fixture
def subject(monkeypatch, tmp_path):
    (tmp_path / "minilm").mkdir()
    monkeypatch.setattr(subjects, "fetch", lambda name: tmp_path / name)
    monkeypatch.setattr(subjects, "prepare", lambda name: tmp_path / name)
    return subjects.SUBJECTS["minilm-dynamo"]


def record(monkeypatch, done: Finished, made: bytes | None = None) -> list[list[str]]:
    """Run nothing; note the commands, and leave a file where the last argument or -o says."""
    commands = []

    def run(command):
        commands.append(list(command))
        target = command[command.index("-o") + 1] if "-o" in command else command[-1]
        if made is not None:
            Path(target).write_bytes(made)
        return done

    monkeypatch.setattr(rivals, "run_measured", run)
    return commands


def test_onnxq_runs_as_its_users_run_it(monkeypatch, subject, tmp_path):
    commands = record(monkeypatch, SUCCESS, b"0" * 2_500_000)
    row = rivals.build("onnxq-qdq", subject, tmp_path / "out.onnx")
    assert commands[0][1:5] == ["-m", "onnxq", "optimize", str(tmp_path / "minilm" / "dynamo.onnx")]
    assert commands[0][5:9] == ["--calib", f"{tmp_path}/minilm/calibration.npz", "--batch-size", "8"]
    assert commands[0][9:] == ["--format", "qdq", "-o", str(tmp_path / "out.onnx"), "--json"]
    assert row == {
        "call": "onnxq optimize MODEL --calib DATA --format qdq",
        "seconds": 3.1,
        "peak_mb": 512,
        "file_mb": 2.5,
        "report": {"kernels": {"Gemm": 3}},
    }


def test_rival_gets_the_same_samples(monkeypatch, subject, tmp_path):
    commands = record(monkeypatch, dataclasses.replace(SUCCESS, output=""), b"0")
    row = rivals.build("ort-noout", subject, tmp_path / "out.onnx")
    data = f"{tmp_path}/minilm/calibration.npz"
    assert commands[0][3:] == ["ort-noout", str(subject.path), data, "8", str(tmp_path / "out.onnx")]
    assert "report" not in row


def test_contestant_that_failed_says_why(monkeypatch, subject, tmp_path):
    record(monkeypatch, dataclasses.replace(SUCCESS, code=10, errors="text\nerror: not faster\nA hint.\n"))
    assert rivals.build("onnxq", subject, tmp_path / "out.onnx")["failure"] == "error: not faster"


def test_contestant_that_wrote_nothing_failed(monkeypatch, subject, tmp_path):
    record(monkeypatch, SUCCESS)
    assert "failure" in rivals.build("onnxq", subject, tmp_path / "out.onnx")


def test_images_are_calibrated_as_they_are_judged():
    options = dict(zip(*[iter(subjects.SUBJECTS["vit"].calibration)] * 2, strict=True))
    assert options["--image-size"] == "224"
    assert json.loads(f"[{options['--mean']}]") == [0.485, 0.456, 0.406]
    assert json.loads(f"[{options['--std']}]") == [0.229, 0.224, 0.225]


def test_feeds_are_the_first_test_samples_of_the_shape(subject):
    np.savez(subject.data / "test.npz", input_ids=np.arange(20).reshape(10, 2))
    np.testing.assert_array_equal(subject.feeds("8x128")["input_ids"], np.arange(16).reshape(8, 2))

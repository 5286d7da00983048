"""The competition as a whole: who takes part, what fails is a row, rounds are added to what is there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import rivals, subjects
from benchmarks.artefacts import Artefact
from benchmarks.contestants import CONTESTANTS, Rival, taking_part
from benchmarks.export import BenchmarkError
from benchmarks.subjects import SUBJECTS

PROCESS = {"least_ms": 9.0, "median_ms": 10.0, "runs": 7, "load_ms": 1.0, "peak_rss_mb": 50.0}


@pytest.fixture
def subject(monkeypatch, tmp_path):
    (tmp_path / "minilm").mkdir()
    monkeypatch.setattr(subjects, "fetch", lambda name: tmp_path / name)
    monkeypatch.setattr(subjects, "prepare", lambda name: tmp_path / name)
    return SUBJECTS["minilm-dynamo"]


def test_files_that_are_run_again_are_those_of_contestants():
    for name, each in CONTESTANTS.items():
        assert (each.maker is None) == bool(each.file_of), name
        assert not each.file_of or each.file_of == "fp32" or CONTESTANTS[each.file_of].maker, name


def test_original_comes_first():
    for subject in SUBJECTS.values():
        assert next(iter(taking_part(subject))) == "fp32"


def test_only_contestants_that_fit_a_model_take_part():
    assert "onnxq-int4" in taking_part(SUBJECTS["smollm2"])
    assert "onnxq-int4" not in taking_part(SUBJECTS["vit"])


def test_openvino_runs_in_the_environment_that_makes_its_files():
    made = [
        each for each in CONTESTANTS.values() if isinstance(each.maker, Rival) and each.maker.suffix == ".xml"
    ]
    assert made
    assert all(each.runtime.environment == each.maker.environment for each in made)


def test_contestant_whose_model_does_not_run_says_why(monkeypatch, subject, tmp_path):
    monkeypatch.setattr(rivals, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(
        rivals, "find_or_make", lambda *given: Artefact(tmp_path / "a" / "b.onnx", {"seconds": 3.1})
    )

    def judge(entry):
        raise BenchmarkError("FAIL : Cubic mode only supports")

    row = rivals.enter("ort-dynamic", subject, judge)
    assert row["failure"] == "FAIL : Cubic mode only supports"
    assert row["seconds"] == 3.1
    assert row["file"] == "a/b.onnx"


def test_contestant_without_a_file_is_not_judged(monkeypatch, subject, tmp_path):
    monkeypatch.setattr(
        rivals, "find_or_make", lambda *given: Artefact(tmp_path, {"failure": "ValueError: no"})
    )
    row = rivals.enter("nncf-onnx", subject, judge=None)
    assert row["failure"] == "ValueError: no"
    assert "file" not in row


def test_rounds_are_added_in_alternating_order_without_what_failed(monkeypatch, subject, tmp_path):
    (tmp_path / "minilm" / "dynamo.onnx").touch()
    np.savez(subject.data / "test.npz", input_ids=np.zeros((10, 2)))
    asked = []

    def time_round(entries, feeds, seconds, *, backwards):
        asked.append((list(entries), len(feeds["input_ids"]), backwards))
        return dict.fromkeys(entries, PROCESS)

    monkeypatch.setattr(rivals, "time_round", time_round)
    rows = {name: {"file": f"{name}.onnx"} for name in ("fp32", "ort-dynamic")}
    rows |= {"nncf-onnx": {"file": "c.onnx", "failure": "no"}, "onnxq": {"failure": "not faster"}}
    result = {"subject": "minilm-dynamo", "rows": rows}
    rivals.time_again(result, rounds=1, seconds=1.0, shapes=["8x128"])
    rivals.time_again(json.loads(json.dumps(result)), rounds=2, seconds=1.0)
    both = ["fp32", "ort-dynamic"]
    assert asked == [(both, 8, False), (both, 8, True), (both, 8, False), (both, 1, False), (both, 1, True)]


def test_images_are_calibrated_as_they_are_judged():
    options = dict(zip(*[iter(SUBJECTS["vit"].calibration)] * 2, strict=True))
    assert options["--image-size"] == "224"
    assert json.loads(f"[{options['--mean']}]") == [0.485, 0.456, 0.406]
    assert json.loads(f"[{options['--std']}]") == [0.229, 0.224, 0.225]


def test_feeds_are_the_first_test_samples_of_the_shape(subject):
    np.savez(subject.data / "test.npz", input_ids=np.arange(20).reshape(10, 2))
    np.testing.assert_array_equal(subject.feeds("8x128")["input_ids"], np.arange(16).reshape(8, 2))

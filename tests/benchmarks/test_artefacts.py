"""Files of contestants: the command of each, its cost, and when it is made anew."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

from benchmarks import artefacts, contestants, subjects
from benchmarks.contestants import CONTESTANTS
from benchmarks.measure import Finished
from benchmarks.tasks import TASKS

PASSES = [{"name": "drop-dropout", "changes": 0}, {"name": "fold-gamma", "changes": 2, "rejects": []}]
REPORT = json.dumps({"kernels": {"Gemm": 3}, "layers": [], "passes": PASSES})
SUCCESS = Finished(code=0, seconds=3.14159, peak_mb=512.4, output=REPORT, errors="")
QUIET = dataclasses.replace(SUCCESS, output="")


@pytest.fixture
def subject(monkeypatch, tmp_path):
    (tmp_path / "minilm").mkdir()
    (tmp_path / "minilm" / "dynamo.onnx").write_bytes(tmp_path.name.encode())
    monkeypatch.setattr(subjects, "fetch", lambda name: tmp_path / name)
    monkeypatch.setattr(subjects, "prepare", lambda name: tmp_path / name)
    monkeypatch.setattr(artefacts, "fingerprint", lambda name: "data")
    monkeypatch.setattr(artefacts, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(artefacts, "code_fingerprint", lambda: "code")
    monkeypatch.setattr(contestants, "python_of", lambda name: Path(f"python-of-{name}"))
    return subjects.SUBJECTS["minilm-dynamo"]


def record(monkeypatch, done: Finished, made: bytes | None = b"0") -> list[list[str]]:
    """Run nothing; note the commands, and leave a file where -o or the job says."""
    commands = []

    def run(command, **settings):
        commands.append(list(command))
        target = command[command.index("-o") + 1] if "-o" in command else json.loads(command[-1])["target"]
        if made is not None:
            Path(target).write_bytes(made)
        return done

    monkeypatch.setattr(artefacts, "run_measured", run)
    return commands


def test_onnxq_runs_as_its_users_run_it(monkeypatch, subject, tmp_path):
    commands = record(monkeypatch, SUCCESS, b"0" * 2_500_000)
    found = artefacts.find_or_make("onnxq-qdq", subject)
    assert commands[0][1:5] == ["-m", "onnxq", "optimize", str(tmp_path / "minilm" / "dynamo.onnx")]
    assert commands[0][5:9] == ["--calib", f"{tmp_path}/minilm/calibration.npz", "--batch-size", "8"]
    assert commands[0][9:12] == ["--format", "qdq", "-o"]
    assert commands[0][-1] == "--json"
    report = {"passes": {"fold-gamma": 2}, "kernels": {"Gemm": 3}}
    assert found.cost == {"seconds": 3.1, "peak_mb": 512, "file_mb": 2.5, "report": report}
    assert found.path.stat().st_size == 2_500_000


def test_rival_gets_the_same_samples_in_its_own_environment(monkeypatch, subject, tmp_path):
    commands = record(monkeypatch, QUIET)
    found = artefacts.find_or_make("nncf-onnx", subject)
    assert commands[0][:3] == ["python-of-nncf", "-m", "benchmarks.rival_builds.nncf_quantizers"]
    job = json.loads(commands[0][3])
    assert (job["model"], job["batch"]) == (str(subject.path), 8)
    assert job["calibration"] == f"{tmp_path}/minilm/calibration.npz"
    assert "report" not in found.cost


def test_what_is_there_is_not_made_again(monkeypatch, subject):
    commands = record(monkeypatch, QUIET)
    first = artefacts.find_or_make("ort-dynamic", subject)
    assert artefacts.find_or_make("ort-dynamic", subject) == first
    assert len(commands) == 1


@pytest.mark.parametrize("changed", ["code_fingerprint", "fingerprint", "source_fingerprint"])
def test_ours_is_made_again_when_code_data_or_source_change(monkeypatch, subject, changed):
    commands = record(monkeypatch, SUCCESS)
    artefacts.find_or_make("onnxq", subject)
    monkeypatch.setattr(artefacts, changed, lambda *given: "another")
    artefacts.find_or_make("onnxq", subject)
    assert len(commands) == 2


def test_rivals_do_not_hang_on_our_code(monkeypatch, subject):
    commands = record(monkeypatch, QUIET)
    artefacts.find_or_make("ort-dynamic", subject)
    monkeypatch.setattr(artefacts, "code_fingerprint", lambda: "another")
    artefacts.find_or_make("ort-dynamic", subject)
    assert len(commands) == 1


def test_what_failed_says_why_and_is_tried_again(monkeypatch, subject):
    errors = "text\nerror: not faster\nA hint.\n"
    commands = record(monkeypatch, dataclasses.replace(SUCCESS, code=10, errors=errors))
    assert artefacts.find_or_make("onnxq", subject).cost["failure"] == "error: not faster"
    assert not artefacts.find_or_make("onnxq", subject).there
    assert len(commands) == 2


def test_contestant_that_wrote_nothing_failed(monkeypatch, subject):
    record(monkeypatch, SUCCESS, made=None)
    assert not artefacts.find_or_make("onnxq", subject).there


def test_file_of_another_costs_nothing_more(monkeypatch, subject):
    record(monkeypatch, QUIET)
    found = artefacts.find_or_make("openvino-nncf-bf16", subject)
    assert found.path == artefacts.find_or_make("openvino-nncf", subject).path
    assert found.cost == {}
    assert artefacts.find_or_make("openvino", subject).path == subject.path


def test_failure_of_another_is_its_own(monkeypatch, subject):
    record(monkeypatch, dataclasses.replace(QUIET, code=1, errors="ValueError: no\n"))
    assert artefacts.find_or_make("openvino-nncf-bf16", subject).cost["failure"] == "ValueError: no"


def test_answers_hang_on_what_runs_the_file(subject, tmp_path):
    file = tmp_path / "model.onnx"
    runtimes = [CONTESTANTS[name].runtime for name in ("fp32", "fp32-noskip", "openvino", "openvino-bf16")]
    places = {artefacts.judgement_path(file, runtime, subject, "sentences") for runtime in runtimes}
    assert len(places) == 4


def inner(x):
    return x + 1


def outer(x):
    return [inner(each) for each in x]


def test_source_of_a_task_holds_what_it_calls_and_no_more():
    assert artefacts.source_of(outer) == "".join(map(inspect.getsource, (inner, outer)))
    assert "def pool" in artefacts.source_of(TASKS["sentences"].answer)
    assert "answer_language" not in artefacts.source_of(TASKS["sentences"].answer, TASKS["sentences"].score)

"""The command line with an API that records what it was asked and gives canned results."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import onnxq
from onnxq.cli.program import program
from onnxq.report.measures import DataSummary, Fidelity, Goal, Machine, ModelSummary, Timing
from onnxq.report.results import Report
from onnxq.report.rows import PassRow

MODEL = ModelSummary("m.onnx", "00" * 32, 1000, 17, 8, "pytorch", 4)
MACHINE = Machine("EPYC", ("avx2",), 2, 2, 10**9, "Linux", "3.11", "1.32", "0.1.0")


class Optimized:
    """What `api.optimize` gives back."""

    def __init__(self, *goals: Goal, passes: tuple[PassRow, ...] = ()) -> None:
        self.report = Report(
            MODEL,
            MODEL,
            MACHINE,
            DataSummary("d.npz", "11", 8, 16),
            fidelity=(Fidelity("y", 0.999, 0.998, 30.0, 0.1),),
            latency=(Timing("fp32", "x=1", 2, 2, 2, 0), Timing("int8", "x=1", 2, 1, 1, 0, 2.0)),
            passes=passes,
            goals=goals,
            hints=("try --effort best",),
            recipe="version = 1\n",
        )

        self.opening = types.SimpleNamespace(options={})

    def save(self, path: Path) -> None:
        path.write_bytes(b"rewritten")


class Api(types.ModuleType):
    """A stand-in for `onnxq.api`: set an attribute to the result, or to an exception to raise."""

    def __init__(self) -> None:
        super().__init__("onnxq.api")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def answers(self, verb: str, answer: object) -> None:
        def call(*args: Any, **kwargs: Any) -> object:
            self.calls.append((verb, args, kwargs))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        setattr(self, verb, call)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    fake = Api()
    fake.answers("optimize", Optimized())
    monkeypatch.setitem(sys.modules, "onnxq.api", fake)
    monkeypatch.setattr(onnxq, "api", fake, raising=False)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line in an empty folder with a `m.onnx` in it."""
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(b"original")

    def call(*words: str) -> Result:
        return CliRunner().invoke(program, list(words), prog_name="onnxq")

    return call


@pytest.fixture
def told() -> Callable[[Result], Any]:
    """The one JSON document on stdout."""
    return lambda result: json.loads(result.stdout)

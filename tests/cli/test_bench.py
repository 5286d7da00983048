"""What `onnxq bench` makes of its options, and what it writes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from onnxq.recipe import BenchSettings
from onnxq.report.bench_rows import MemoryRow, NodeRow, OperatorRow
from onnxq.report.measures import Timing
from onnxq.report.results import BenchResult
from tests.cli.conftest import MACHINE, Api

RESULT = BenchResult(
    MACHINE,
    (
        Timing("a.onnx", "x=1x2", 2, 2.0, 2.1, 0.1, medians_ms=(2.1, 2.2)),
        Timing("b.onnx", "x=1x2", 2, 1.0, 1.1, 0.1, 2.0, 1.8, 2.1, "faster", (1.1, 1.2)),
    ),
    5,
    memory=(MemoryRow("a.onnx", "x=1x2", 1000, 3.0, None, None),),
    operators=(OperatorRow("a.onnx", "x=1x2", "MatMul", 3, 900.0, 0.9),),
    nodes=(NodeRow("a.onnx", "x=1x2", "n1", "MatMul", 500.0, 0.5),),
)


@pytest.fixture
def asked(api: Api, run: Callable[..., Result]) -> Callable[..., BenchSettings]:
    """The settings that a command line comes to."""
    api.answers("bench", RESULT)

    def ask(*words: str) -> BenchSettings:
        result = run("bench", "a.onnx", "b.onnx", *words)
        assert result.exit_code == 0, result.stderr
        verb, (models, settings), _ = api.calls[-1]
        assert (verb, models) == ("bench", (Path("a.onnx"), Path("b.onnx")))
        assert isinstance(settings, BenchSettings)
        return settings

    return ask


@pytest.mark.parametrize(
    ("told", "cases"),
    [
        ((), ({},)),
        (("x=1x2",), ({"x": (1, 2)},)),
        (("x=1x2", "y=3"), ({"x": (1, 2), "y": (3,)},)),
        (("x=1x2", "x=8x2"), ({"x": (1, 2)}, {"x": (8, 2)})),
        (("x=1,y=2", "x=3,y=4"), ({"x": (1,), "y": (2,)}, {"x": (3,), "y": (4,)})),
        (("x=1", "y=2", "x=3", "y=4"), ({"x": (1,), "y": (2,)}, {"x": (3,), "y": (4,)})),
        (("x=1,y=2", "y=3"), ({"x": (1,), "y": (2,)}, {"y": (3,)})),
        (
            ("batch=1,past=0", "batch=1,past=9"),
            ({"batch": (1,), "past": (0,)}, {"batch": (1,), "past": (9,)}),
        ),
    ],
)
def test_a_name_that_comes_again_begins_the_next_case(
    asked: Callable[..., BenchSettings], told: tuple[str, ...], cases: tuple[object, ...]
) -> None:
    assert asked(*(word for shape in told for word in ("--shape", shape))).cases == cases


def test_what_is_not_said_stays_as_it_is(asked: Callable[..., BenchSettings]) -> None:
    assert asked() == BenchSettings()


def test_every_option_arrives(asked: Callable[..., BenchSettings]) -> None:
    words = (
        "--threads 3 --rounds 4 --seconds 0.5 --warmup 2 --provider cuda --provider-option device_id=1 --ops "
        "--affinity any --disable-optimizer A --disable-optimizer B --timeout 9 --host pi@edge:22 "
        "--host-python ~/v/bin/python"
    )
    assert asked(*words.split(), "--ssh", "ssh -i key") == BenchSettings(
        threads=3,
        rounds=4,
        seconds=0.5,
        warmup=2,
        provider="cuda",
        provider_options={"device_id": "1"},
        ops=True,
        affinity=(),
        disabled_optimizers=("A", "B"),
        timeout=9,
        host="pi@edge:22",
        host_python="~/v/bin/python",
        ssh="ssh -i key",
    )


def test_figures_are_saved_as_a_page_and_as_json(asked: Callable[..., BenchSettings]) -> None:
    asked("--save", "f.json", "--save", "f.html")
    told = json.loads(Path("f.json").read_text(encoding="utf-8"))
    assert told["schema"] == "onnxq/bench-1"
    assert told["timings"][1]["verdict"] == "faster"
    assert told["timings"][1]["medians_ms"] == [1.1, 1.2]
    assert told["operators"][0]["op"] == "MatMul"
    page = Path("f.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 2
    assert "n1" in page

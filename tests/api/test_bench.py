"""`bench` as a whole: real processes, and no word about how fast anything is."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxq import api
from onnxq.api import bench_records
from onnxq.api.opening import Opening, write_opening
from onnxq.errors import UsageProblem
from onnxq.files import read_parts, save
from onnxq.recipe import BenchSettings
from onnxq.report.outline import outline
from onnxq.runtime import Latency, Profile
from onnxq.runtime.profiling import NodeTime
from onnxq.targets.opening import ARM_BFLOAT16
from tests.api import models
from tests.runtime.loopback import serving

QUICK = {"threads": 1, "rounds": 3, "seconds": 0.02}


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in ("a.onnx", "b's best.onnx")]
    for path in found:
        save(models.small(), path)
    return found


@pytest.fixture
def really(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the clock that other tests of the API do without."""
    from onnxq.runtime import timing
    from tests.api.conftest import MEASURE

    monkeypatch.setattr(timing.Contest, "measure", MEASURE)
    yield


def test_several_shapes_are_labelled_in_the_users_words(paths: list[Path]) -> None:
    shapes = ({"x": (1, 16)}, {"x": (4, 16)})
    found = api.bench(paths, BenchSettings(shapes=shapes, **QUICK))
    assert [(row.shape, row.model) for row in found.timings] == [
        (shape, path.name) for shape in ("x=1x16", "x=4x16") for path in paths
    ]
    assert len(outline(found).headline.splitlines()) == 2
    sizes = {row.model: row.size_bytes for row in found.memory}
    assert sizes == {path.name: read_parts(path).size_bytes for path in paths}
    assert found.operators == found.nodes == found.placements == ()


@pytest.mark.usefixtures("really")
def test_operators_and_memory_of_real_processes(paths: list[Path]) -> None:
    stages = []
    found = api.bench(
        paths,
        BenchSettings(ops=True, **QUICK),
        progress=lambda stage, *counts: stages.append((stage, counts)),
    )
    label = found.timings[0].shape
    assert label.startswith("x=")
    assert (f"timing at {label}", (5, 6)) in stages
    for path in paths:
        own = [row for row in found.operators if row.model == path.name]
        assert sum(row.share for row in own) == pytest.approx(1)
        assert own == sorted(own, key=lambda row: -row.us)
        assert {row.op for row in found.nodes if row.model == path.name} <= {row.op for row in own}
    for memory in found.memory:
        assert memory.load_ms > 0
        assert (memory.peak_bytes or 0) > (memory.loaded_bytes or 0) >= 0
    for timing in found.timings:
        assert len(timing.medians_ms) == 3
        assert timing.runs >= 15
    assert found.timings[0].verdict == ""
    assert found.timings[1].verdict in ("faster", "slower", "not resolved")
    assert found.timings[1].ratio_low <= found.timings[1].ratio_high


@pytest.mark.usefixtures("really")
def test_nodes_that_a_provider_leaves_to_the_cpu_are_counted(paths: list[Path]) -> None:
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that takes no nodes")
    found = api.bench(paths[:1], BenchSettings(provider="AzureExecutionProvider", **QUICK))
    assert [row.provider for row in found.placements] == ["CPUExecutionProvider"]
    assert any("None of the" in hint and hint.endswith("but on cpu.") for hint in found.hints)


@pytest.mark.parametrize(
    ("shapes", "slug", "told"),
    [
        ({"q": (1, 16)}, "unknown-input", "x "),
        ({"x": (1, 16, 2)}, "bad-shape", "3 sizes for"),
        (({"x": (1, 16)}, {"x": (1, 16)}), "same-shape", "x=1x16 is asked for twice"),
    ],
)
def test_wrong_shapes_are_refused_before_anything_is_timed(
    paths: list[Path], shapes: object, slug: str, told: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        api.bench(paths, BenchSettings(shapes=shapes))
    assert caught.value.slug == slug
    assert told in str(caught.value)
    if slug != "same-shape":
        assert caught.value.message.startswith("a.onnx: ")


def test_a_command_that_is_none(paths: list[Path]) -> None:
    with pytest.raises(UsageProblem, match="is no command"):
        api.bench(paths, BenchSettings(host="edge", ssh="ssh 'unclosed"))


@pytest.mark.usefixtures("really")
def test_models_are_timed_on_another_machine_and_nothing_stays_there(
    paths: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    stages = []
    write_opening(Opening("cpu", ARM_BFLOAT16), paths[1])
    with serving(tmp_path_factory.mktemp("ssh")) as server:
        there = {"host": server.host, "host_python": sys.executable, "ssh": shlex.join(server.ssh)}
        found = api.bench(
            paths,
            BenchSettings(ops=True, shapes={"x": (2, 16)}, **there, **QUICK),  # type: ignore[arg-type]
            progress=lambda stage, *_: stages.append(stage),
        )
        assert not list(server.scratch.iterdir())
    assert found.host == server.host
    assert found.machine.python == platform.python_version()
    assert [(row.model, row.shape) for row in found.timings] == [(path.name, "x=2x16") for path in paths]
    assert all(len(row.medians_ms) == 3 and row.runs >= 15 for row in found.timings)
    assert {row.model for row in found.operators} == {path.name for path in paths}
    assert [row.size_bytes for row in found.memory] == [read_parts(path).size_bytes for path in paths]
    assert any(
        hint.startswith(f"{paths[1].name} was opened as its session file says") for hint in found.hints
    )
    assert list(dict.fromkeys(stages))[:2] == [f"logging in to {server.host}", stages[1]]
    assert stages[1].startswith("copying to ")


# hints


def latency(*medians: float, verdict: str = "", settled: bool = True, least: float = 1.0) -> Latency:
    spread = (max(medians) - min(medians)) / min(medians)
    return Latency(1, min(medians), medians[0], spread, 0.1, medians, 10, 1.0, 100.0, least,
                   settled=settled, verdict=verdict, speedup_low=0.9, speedup_high=1.1)  # fmt: skip


def hints(timed: dict[str, Latency], provider: str = "cpu", **nodes: tuple[NodeTime, ...]) -> str:
    profiles = {
        ("x=1", name): Profile(each, {node.op: node.us for node in each}) for name, each in nodes.items()
    }
    settings = BenchSettings(provider=provider)
    sizes = dict.fromkeys(timed, 1)
    machine = api.doctor().machine
    return "\n".join(bench_records.result(machine, settings, {"x=1": timed}, profiles, sizes).hints)


def test_a_difference_that_is_none_is_called_so() -> None:
    told = hints({"a": latency(1, 1, 1), "b": latency(1, 1.1, 0.9, verdict="not resolved")})
    assert "b against a at x=1: not resolved, the rounds lie within 0.900x to 1.10x" in told
    told = hints({"a": latency(1), "b": latency(1, verdict="not resolved")})
    assert "3 rounds at least" in told


def test_a_difference_of_unknown_size_is_called_so() -> None:
    told = hints({"a": latency(1, 1, 1), "b": latency(1, 1, 1, verdict="faster", least=4.5)})
    assert "4.50x by least times, 0.900x to 1.10x by the rounds" in told


def test_rivals_that_are_as_fast_as_each_other_are_called_so() -> None:
    timed = {
        "a": latency(9, 9, 9, 9, 9),
        "b": latency(2, 3, 2, 3, 2, verdict="faster"),
        "c": latency(3, 2, 3, 2, 3, verdict="faster", least=1.1),
        "d": latency(5, 5, 5, 5, 5, verdict="faster"),
    }
    assert "c against b at x=1: not resolved." in hints(timed)


def test_figures_that_wander_are_called_so() -> None:
    told = hints({"a": latency(1, 1, 1), "b": latency(1, 2, 1, verdict="slower", settled=False)})
    assert "The processes of b disagree" in told
    assert "b still got faster" in told
    assert hints({"a": latency(1, 1, 1), "b": latency(2, 2, 2, verdict="slower")}) == ""


def test_a_baseline_that_the_runtime_slows_down_is_called_so() -> None:
    slow = (
        NodeTime("n", "MatMul", "CPUExecutionProvider", 80),
        NodeTime("m", "SkipLayerNormalization", "", 20),
    )
    timed = {"a": latency(1, 1, 1), "b": latency(2, 2, 2, verdict="slower")}
    assert "a spends 20.0 % of its time in SkipLayerNormalization" in hints(timed, a=slow)
    assert hints({"a": timed["a"]}, a=slow) == ""


def test_stray_nodes_are_counted_by_operator() -> None:
    nodes = tuple(
        NodeTime(str(i), op, f"{provider}ExecutionProvider", 1)
        for i, (op, provider) in enumerate([("MatMul", "CUDA"), ("Gather", "CPU"), ("Gather", "CPU")])
    )
    told = hints({"a": latency(1, 1, 1)}, "cuda", a=nodes)
    assert "2 of 3 nodes of a ran on cpu at x=1: Gather 2." in told

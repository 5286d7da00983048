"""A run that was killed goes on from what it had, and ends as if it had not been."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxq.demo
from onnxq.api import execution, optimize
from onnxq.api.checkpoints import Checkpoints
from onnxq.errors import OutputError
from onnxq.files import to_bytes
from onnxq.interop import as_model
from onnxq.passes.clean import cleaning
from onnxq.pipeline import run
from onnxq.recipe import OptimizeSettings
from onnxq.targets.costs import KernelCosts
from tests.api import models

SETTINGS = OptimizeSettings(
    effort="fast", threads=1, target="x86-vnni", costs=vars(KernelCosts()), min_fidelity=0.5
)


class Killed(BaseException):
    """What a kill looks like from inside."""


def optimized(folder: Path | None) -> bytes:
    result = optimize(models.digits(), onnxq.demo.load_calibration(), settings=SETTINGS, work_dir=folder)
    return to_bytes(result.model)


def test_a_run_goes_on_after_a_kill_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def dying(*given, **options):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return run(*given, **options)

    monkeypatch.setattr(execution, "run", dying)
    with pytest.raises(Killed):
        optimized(tmp_path / "work")
    assert len(calls) == 3
    resumed = optimized(tmp_path / "work")
    assert len(calls) == 4, "what was done before the kill is not done again"
    assert resumed == optimized(None)
    assert len(calls) == 7
    assert optimized(tmp_path / "work") == resumed
    assert len(calls) == 7


@pytest.mark.parametrize("damage", ["", "{}", "nonsense", None])
def test_what_was_damaged_is_made_again(tmp_path: Path, damage: str | None) -> None:
    kept = Checkpoints(tmp_path, ("data",))
    model = as_model(models.digits())
    first = kept.run(model, cleaning(), lambda: run(model, cleaning(), verify="never"))
    record, graph = (next(tmp_path.glob(pattern)) for pattern in ("*.json", "*.onnx"))
    if damage is None:
        graph.write_bytes(graph.read_bytes()[:100])
    else:
        record.write_text(damage)
    again: list[int] = []

    def make():
        again.append(1)
        return run(model, cleaning(), verify="never")

    second = kept.run(model, cleaning(), make)
    assert again
    assert to_bytes(second.model) == to_bytes(first.model)
    third = kept.run(model, cleaning(), make)
    assert len(again) == 1, "and kept this time"
    assert third.journal == first.journal
    assert [each.name for each in third.results] == [each.name for each in first.results]


def test_a_result_hangs_on_model_passes_and_context(tmp_path: Path) -> None:
    made: list[str] = []

    def figures(kept: Checkpoints, model, *parts: str) -> None:
        kept.figures("effects", model, parts, lambda: made.append("x") or {"a": 1.0})  # type: ignore[func-returns-value]

    one, other = Checkpoints(tmp_path, ("data",)), Checkpoints(tmp_path, ("other data",))
    for kept, model, parts in (
        (one, as_model(models.digits()), ("p",)),
        (one, as_model(models.digits()), ("q",)),
        (one, as_model(models.digits_without_names()), ("p",)),
        (other, as_model(models.digits()), ("p",)),
    ):
        before = len(made)
        figures(kept, model, *parts)
        figures(kept, model, *parts)
        assert len(made) == before + 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match=str(blocked)):
        Checkpoints(blocked / "work")

"""Whatever happens in the middle of a save, the target holds the old model or the new one, whole."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnxq.errors import OutputError
from onnxq.files import fingerprint, load, save
from tests.crash.faults import fail, fault_at, kill, kill_after, run_in_child
from tests.files.models import linear

OLD, NEW = linear(seed=1), linear(seed=2)
OLD_PRINT, NEW_PRINT = fingerprint(OLD), fingerprint(NEW)


@dataclass(frozen=True)
class Scenario:
    """A save of a new model over an old one; None for no old one."""

    old: str | None
    new: str
    in_place: bool = False

    def prepare(self, folder: Path) -> Path:
        """Write the old model."""
        path = folder / "model.onnx"
        if self.old is not None:
            save(OLD, path, external=self.old == "external")
        return path

    def job(self, path: Path) -> Callable[[], None]:
        """The save that will be disturbed. In place: of the old model, mapped from the very files."""
        model = load(path) if self.in_place else NEW
        return lambda: save(model, path, external=self.new == "external")

    @property
    def prints(self) -> set[str]:
        """Fingerprints of what may be at the target in the middle."""
        return {OLD_PRINT if self.in_place else NEW_PRINT} | ({OLD_PRINT} if self.old else set())


SCENARIOS = {
    "first inline": Scenario(None, "inline"),
    "first external": Scenario(None, "external"),
    "inline over inline": Scenario("inline", "inline"),
    "external over inline": Scenario("inline", "external"),
    "inline over external": Scenario("external", "inline"),
    "external over external": Scenario("external", "external"),
    "in place": Scenario("external", "external", in_place=True),
    "in place to inline": Scenario("external", "inline", in_place=True),
}
FILES = {"inline": 1, "external": 2}


def calls_of(scenario: Scenario, folder: Path) -> list[str]:
    """The calls of an undisturbed save."""
    folder.mkdir()
    path = scenario.prepare(folder)
    job = scenario.job(path)
    with fault_at(-1, kill) as names:
        job()
    return names


def check(scenario: Scenario, path: Path) -> None:
    """The target is whole now, and clean after the next save."""
    if path.exists() or scenario.old is not None:
        assert fingerprint(load(path)) in scenario.prints
    save(NEW, path, external=scenario.new == "external")
    assert fingerprint(load(path)) == NEW_PRINT
    assert len(os.listdir(path.parent)) == FILES[scenario.new]


def test_the_faults_cover_every_kind_of_call(tmp_path):
    names = calls_of(SCENARIOS["external over external"], tmp_path / "x")
    assert set(names) == {"open", "chmod", "write", "fsync", "close", "replace", "listdir", "unlink"}
    assert sum(len(calls_of(s, tmp_path / n)) for n, s in SCENARIOS.items()) * 2 >= 200


@pytest.mark.parametrize("fault", [kill, kill_after])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_call_leaves_old_or_new(name, fault, tmp_path):
    scenario = SCENARIOS[name]
    for number in range(len(calls_of(scenario, tmp_path / "count"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = scenario.prepare(folder)
        job = scenario.job(path)

        def disturbed(job: Callable[[], None] = job, number: int = number) -> None:
            with fault_at(number, fault):
                job()

        assert run_in_child(disturbed) == signal.SIGKILL
        check(scenario, path)
        shutil.rmtree(folder)


CODES = {
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EACCES: "not-writable",
    errno.EROFS: "not-writable",
    errno.EIO: "io-error",
    errno.EMFILE: "io-error",
}


@pytest.mark.parametrize(
    ("name", "code"),
    [("first external", errno.ENOSPC), ("in place to inline", errno.EIO)]
    + [("external over external", code) for code in CODES],
)
def test_a_failing_call_gives_our_error_and_keeps_the_old_model(name, code, tmp_path):
    scenario = SCENARIOS[name]
    names = calls_of(scenario, tmp_path / "count")
    moment = len(names) - names[::-1].index("replace") - 1
    for number in range(len(names)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = scenario.prepare(folder)
        before = path.read_bytes() if scenario.old else None
        job = scenario.job(path)
        with fault_at(number, fail(code)):
            try:
                job()
                raised = False
            except OutputError as error:
                raised = True
                assert error.slug == CODES[code]
        assert raised or names[number] in ("listdir", "unlink", "chmod", "close")
        if raised and number <= moment:
            assert (path.read_bytes() if path.exists() else None) == before
            assert not [name for name in os.listdir(folder) if name.endswith("draft")]
        check(scenario, path)


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in range(len(calls_of(SCENARIOS["first external"], tmp_path / "count")) - 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        with fault_at(number, interrupt), pytest.raises(KeyboardInterrupt):
            save(NEW, folder / "model.onnx", external=True)
        assert not [name for name in os.listdir(folder) if name.endswith("draft")]


def test_a_write_that_writes_little_is_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:1000]))
    save(NEW, tmp_path / "model.onnx", external=True)
    assert fingerprint(load(tmp_path / "model.onnx")) == NEW_PRINT


def test_everything_is_on_disk_before_it_takes_its_place(tmp_path):
    """A power cut may reorder what no fsync has ordered: each rename comes after the data it shows."""
    names = calls_of(SCENARIOS["external over external"], tmp_path / "x")
    first_replace, second_replace = (i for i, name in enumerate(names) if name == "replace")
    last_write = max(i for i, name in enumerate(names) if name == "write")
    syncs = [i for i, name in enumerate(names) if name == "fsync"]
    assert len([i for i in syncs if i < first_replace]) == 2
    assert last_write < first_replace
    assert [i for i in syncs if first_replace < i < second_replace]
    assert [i for i in syncs if second_replace < i < names.index("unlink")]

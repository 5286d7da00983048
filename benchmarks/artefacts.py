"""Files of contestants and their scores, kept in the cache: what did not change is not made again.

A rival's file hangs on its tool's versions, its program and options, the original and the calibration data;
ours hangs on the code of onnxq in place of the versions. A score hangs on file, runtime and tasks.
What failed is not kept.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import Any

import onnxq
from benchmarks.contestants import CONTESTANTS, Contestant, Ours, Runtime
from benchmarks.data import fingerprint
from benchmarks.environments import ENVIRONMENTS, variables
from benchmarks.measure import run_measured
from benchmarks.models import cache_folder
from benchmarks.subjects import Subject
from benchmarks.tasks import TASKS

Row = dict[str, Any]
LIMIT = 1200.0
"""Seconds that a build may take."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Artefact:
    """A contestant's file and what making it cost: `seconds`, `peak_mb`, `file_mb`, or `failure`."""

    path: Path
    cost: Row

    @property
    def there(self) -> bool:
        """Whether there is a file to run."""
        return "failure" not in self.cost


def find_or_make(name: str, subject: Subject) -> Artefact:
    """Give the file of a contestant, from the cache or new."""
    contestant = CONTESTANTS[name]
    if contestant.maker is None:
        if contestant.file_of == "fp32":
            return Artefact(subject.path, {})
        found = find_or_make(contestant.file_of, subject)
        return replace(found, cost={} if found.there else found.cost)
    folder = cache_folder() / "rivals" / f"{_file(subject)}-{name}-{_identity(contestant, subject)}"
    path, record = folder / f"model{contestant.maker.suffix}", folder / "cost.json"
    if not record.exists():
        cost = _make(contestant, subject, folder)
        if "failure" in cost:
            return Artefact(path, cost)
        record.write_text(json.dumps(cost, indent=1))
    return Artefact(path, json.loads(record.read_text()))


def _make(contestant: Contestant, subject: Subject, folder: Path) -> Row:
    """Build in a folder beside the final one, so that a killed build leaves nothing that counts."""
    assert contestant.maker is not None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "built"
        built.mkdir()
        target = built / f"model{contestant.maker.suffix}"
        ours = isinstance(contestant.maker, Ours)
        done = run_measured(
            contestant.maker.command(subject, target), variables=None if ours else variables(), limit=LIMIT
        )
        cost: Row = {"seconds": round(done.seconds, 1), "peak_mb": round(done.peak_mb)}
        if done.code or not target.exists():
            return cost | {"failure": done.failure}
        size = sum(each.stat().st_size for each in built.iterdir() if each.suffix != ".json")
        cost["file_mb"] = round(size / 1e6, 1)
        os.replace(built, folder)
    return cost | (_own_report(done.output) if ours else {})


def _own_report(output: str) -> Row:
    """Keep of our report what says how the model was made; the rest is large, or measured again here."""
    report = json.loads(output)
    kept = {key: report[key] for key in ("kernels", "goals") if key in report}
    passes = {each["name"]: each["changes"] for each in report.get("passes", ()) if each["changes"]}
    return {"report": {"passes": passes, **kept}}


def judgement_path(path: Path, runtime: Runtime, subject: Subject, task: str) -> Path:
    """Where a file's answers or scores at a task are kept, there or not; a suffix tells which."""
    parts = [runtime.name, json.dumps(dict(runtime.settings), sort_keys=True), *runtime_versions(runtime)]
    parts += [str(path), source_fingerprint(subject.path), fingerprint(subject.model)]
    parts += [task, source_of(TASKS[task].answer, TASKS[task].score)]
    return cache_folder() / "rivals" / "judged" / f"{_file(subject)}-{task}-{_digest(parts)}"


def source_of(*functions: Callable[..., Any]) -> str:
    """The source of functions and of all those of the same module that they call."""
    found, left = dict[str, str](), [each for each in functions if inspect.isfunction(each)]
    while left:
        function = left.pop()
        if function.__qualname__ not in found:
            found[function.__qualname__] = inspect.getsource(function)
            called = (function.__globals__.get(name) for name in _names_in(function.__code__))
            left += [
                each for each in called if inspect.isfunction(each) and each.__module__ == function.__module__
            ]
    return "".join(found[name] for name in sorted(found))


def _names_in(code: CodeType) -> Iterator[str]:
    """Names that a function uses, also in its comprehensions and lambdas."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names_in(each)


def runtime_versions(runtime: Runtime) -> tuple[str, ...]:
    """Versions that a run hangs on."""
    if runtime.environment:
        return ENVIRONMENTS[runtime.environment].packages
    return (f"{runtime.name}=={version(runtime.name)}",)


def _file(subject: Subject) -> str:
    return f"{subject.model}-{subject.path.stem}"


def _identity(contestant: Contestant, subject: Subject) -> str:
    maker = contestant.maker
    parts = [source_fingerprint(subject.path), fingerprint(subject.model), str(subject.batch)]
    if isinstance(maker, Ours):
        parts += [code_fingerprint(), *subject.calibration, *maker.options]
    elif maker is not None:
        programs = HERE / "rival_builds"
        parts += [*maker.versions, json.dumps(dict(maker.options), sort_keys=True)]
        parts += [(programs / f"{each}.py").read_text() for each in ("job", maker.program)]
    return _digest(parts)


@functools.cache
def source_fingerprint(path: Path) -> str:
    """Twelve digits of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


@functools.cache
def code_fingerprint() -> str:
    """Twelve digits over all of onnxq's code."""
    package = Path(onnxq.__file__).parent
    return _digest(each.read_text() for each in sorted(package.rglob("*.py")))


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

"""Scores of a file on the tasks of its subject, in the file's own runtime and environment."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Collection
from typing import Self

import numpy as np

from benchmarks.artefacts import judgement_path
from benchmarks.contestants import CONTESTANTS
from benchmarks.data import load, save
from benchmarks.environments import variables
from benchmarks.export import Arrays, BenchmarkError
from benchmarks.rounds import Entry
from benchmarks.running import receive, send
from benchmarks.subjects import Subject
from benchmarks.tasks import TASKS, Scores


class Answering:
    """A model in its own runtime and process, as tasks want it: batch in, only output out."""

    def __init__(self, entry: Entry) -> None:
        command = [entry.runtime.python, "-m", "benchmarks.running", "answer", entry.spec()]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `__exit__`
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=variables()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __call__(self, feeds: Arrays) -> np.ndarray:
        """Run one batch.

        Raises:
            BenchmarkError: The model does not open or run; with the last line of what its process says.
        """
        assert self._process.stdin and self._process.stdout
        try:
            send(self._process.stdin, feeds)
            found = receive(self._process.stdout)
        except BrokenPipeError:
            found = None
        if found is None:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise BenchmarkError(lines[-1] if lines else "its process ended without a word")
        return found["output"]


class Judge:
    """Scores models on tasks against the answers of the original.

    Scores, and the original's answers, are kept in the cache: what was judged before is not judged again.

    Args:
        subject: The original and its data.
        tasks: Names of its tasks; all if empty.
    """

    def __init__(self, subject: Subject, tasks: Collection[str] = ()) -> None:
        self.subject = subject
        self.tasks = [each for each in subject.tasks if not tasks or each in tasks]

    def __call__(self, entry: Entry) -> dict[str, Scores]:
        """Give the scores of each task.

        Raises:
            BenchmarkError: The model does not open or run.
        """
        return {task: self._score(entry, task) for task in self.tasks}

    def _score(self, entry: Entry, task: str) -> Scores:
        kept = judgement_path(entry.model, entry.runtime, self.subject, task).with_suffix(".json")
        if not kept.exists():
            scores = TASKS[task].score(self._reference(task), _answer(entry, task))
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(scores, indent=1))
        found: Scores = json.loads(kept.read_text())
        return found

    def _reference(self, task: str) -> Arrays:
        original = Entry(self.subject.path, CONTESTANTS["fp32"].runtime)
        kept = judgement_path(original.model, original.runtime, self.subject, task).with_suffix(".npz")
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            save(kept, _answer(original, task))
        return load(kept)


def _answer(entry: Entry, task: str) -> Arrays:
    with Answering(entry) as run:
        return TASKS[task].answer(run)

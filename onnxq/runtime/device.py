"""Timing on another machine: models go there over ssh, figures come back, nothing stays."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files as resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from onnxq.errors import BackendError
from onnxq.files import read_parts
from onnxq.runtime.isolate import obituary
from onnxq.runtime.machine import Machine, Runtime, read_runtime
from onnxq.runtime.places import Job
from onnxq.runtime.ssh import Host, Link, blocks_of
from onnxq.runtime.stopwatch import dressed

_MODEL = "model.onnx"
_SPARE_BYTES = 64 << 20
_GRACE_SECONDS = 60.0


class Device:
    """Another machine as a place to time models at. Use it as a context manager.

    Args:
        host: ``user@device[:port]``.
        python: Its interpreter, of Python 3.8 or later with onnxruntime.
        ssh: The local command, with options of its own if need be.

    Raises:
        UsageProblem: That is no host.
        BackendError: It cannot be reached, or lacks Python or onnxruntime.
    """

    def __init__(self, host: str, *, python: str = "python3", ssh: Sequence[str] = ("ssh",)) -> None:
        self.name = host
        self._sent: dict[str, str] = {}
        self._count = 0
        self._link = Link(Host.parse(host), archive(), python=python, ssh=ssh)
        try:
            told = self._greet(python)
        except BaseException:
            self._link.close()
            raise
        self.python = str(told["python"])
        self._executable = str(told["executable"])
        self.machine = _machine_from(told["machine"])
        self._free = int(told["free"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    def bring(self, model: Path) -> str:
        """Copy a model and its external data there.

        Raises:
            BackendError: There is no room for it.
            NotAModel, UnsafeModel, InvalidModel, UnsupportedModel: As `onnxq.files.load`.
        """
        parts = read_parts(model)
        self._free -= parts.size_bytes
        if self._free < _SPARE_BYTES:
            raise BackendError(
                f"{self.name} has no room for {model.name} ({parts.size_bytes >> 20} MiB)",
                hint="Make room in its temporary folder, or set TMPDIR there.",
                slug="no-room",
            )
        folder = f"models/{self._next()}"
        name = _MODEL
        while name in parts.data:
            name = f"the-{name}"
        for location, data in ((name, parts.model), *parts.data.items()):
            self._put(f"{folder}/{location}", data)
        return f"{folder}/{name}"

    def processors_for(self, threads: int) -> list[int]:
        """Processors of different cores first."""
        found: list[int] = self._link.ask("pin", threads=threads)["cpus"]
        return found

    def time(self, job: Job, limit: float) -> dict[str, Any]:
        """Time a model in a process of its own there.

        Raises:
            BackendError: The model does not open or run there, its process crashed or took too long, or the
                connection broke.
        """
        found: dict[str, Any] = self._call("time_runs", job, limit)
        return found

    def trace(self, job: Job, runs: int, limit: float) -> list[dict[str, Any]]:
        """Trace a model in a process of its own there; errors as `time`."""
        found: list[dict[str, Any]] = self._call("trace_runs", job, limit, runs=runs)
        return found

    def _greet(self, python: str) -> dict[str, Any]:
        told = self._link.ask("hello")
        if told["missing"]:
            raise BackendError(
                f"{python} on {self.name} cannot time models: {told['missing']}",
                hint=f"there: {told['executable']} -m pip install onnxruntime numpy\n"
                "or name an interpreter that has them: --host-python PATH",
                slug="no-onnxruntime",
            )
        return told

    def _call(self, function: str, job: Job, limit: float, **extra: Any) -> Any:
        feeds = {name: self._bring_array(array) for name, array in job["feeds"].items()}
        answer = self._link.ask(
            "call",
            patience=limit + _GRACE_SECONDS,
            function=function,
            job={**job, "feeds": feeds},
            limit=limit,
            **extra,
        )
        if "result" in answer:
            return answer["result"]
        raise self._problem(answer, limit)

    def _problem(self, answer: dict[str, Any], limit: float) -> BackendError:
        if answer.get("late"):
            problem = BackendError(
                f"the model gave no answer in {limit:g} s and was stopped",
                hint="a longer --timeout, or a smaller input",
                slug="timeout",
            )
        elif "crashed" in answer:
            problem = obituary(answer["crashed"], answer["words"])
        else:
            problem = dressed(answer["failure"]["stage"], answer["failure"]["text"])
        hint, runtime, ours = problem.hint, self.machine.runtime, read_runtime()
        if problem.slug == "refused" and runtime and ours and runtime.version != ours.version:
            hint = f"onnxruntime is {runtime.version} there and {ours.version} here; "
            hint += f"there: {self._executable} -m pip install --upgrade onnxruntime"
        return BackendError(f"on {self.name}: {problem.message}", hint=hint, slug=problem.slug)

    def _bring_array(self, array: np.ndarray) -> dict[str, Any]:
        """Where an input lies there; it is sent once."""
        shape = list(array.shape)
        if array.dtype.kind in "OU":
            return {"words": [str(item) for item in array.reshape(-1)], "shape": shape}
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = json.dumps([array.dtype.str, sha256(data.data).hexdigest()])
        if key not in self._sent:
            self._sent[key] = f"inputs/{self._next()}"
            self._put(self._sent[key], data)
        return {"file": self._sent[key], "dtype": array.dtype.str, "shape": shape}

    def _put(self, path: str, data: Any) -> None:
        size = memoryview(data).nbytes
        trouble = self._link.ask("put", blocks_of(data), None, path=path, size=size)["trouble"]
        if trouble:
            raise BackendError(
                f"{self.name} cannot keep a file: {trouble}",
                hint="Make room in its temporary folder, or set TMPDIR there.",
                slug="no-room",
            )

    def _next(self) -> int:
        self._count += 1
        return self._count


def archive() -> bytes:
    """The program that runs there: a Python archive of single files, which import nothing of this package."""
    here, away = resources("onnxq.runtime"), resources("onnxq.runtime.remote")
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, source in (
            ("__main__.py", away / "runner.py"),
            ("stopwatch.py", away / "stopwatch.py"),
            ("machine.py", here / "machine.py"),
        ):
            packed.writestr(zipfile.ZipInfo(name), source.read_bytes(), zipfile.ZIP_DEFLATED)
    return held.getvalue()


def _machine_from(fields: dict[str, Any]) -> Machine:
    runtime = fields.pop("runtime")
    return Machine(**_tupled(fields), runtime=Runtime(**_tupled(runtime)) if runtime else None)


def _tupled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

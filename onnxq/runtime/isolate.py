"""Running a model where it can do no harm: in a worker process with a time limit and a memory limit.

A runtime that crashes, hangs or eats the memory ends the worker and becomes a `BackendError` here. The next
call gets a fresh worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import onnx_ir as ir

from onnxq import errors
from onnxq.errors import BackendError, OnnxqError
from onnxq.runtime.delivery import discard, pack
from onnxq.runtime.frames import read_frame, write_frame
from onnxq.runtime.native import Feeds, Port
from onnxq.runtime.settings import SessionSettings, to_fields
from onnxq.runtime.tensors import dtype_of

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_TAIL = 400


class Worker:
    """A process that opens and runs models for this one. Use it as a context manager.

    Args:
        timeout: Seconds that one call may take, or None for any time.
        memory_mb: Megabytes that the worker may map beyond what it needs to start, or None for no limit. Held
            where the system has ``RLIMIT_AS``.
    """

    def __init__(self, *, timeout: float | None = 120.0, memory_mb: int | None = None) -> None:
        self.timeout = timeout
        self.memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._words: BinaryIO | None = None
        self._lock = threading.Lock()
        self._forgotten: list[int] = []
        self.generation = 0  # how many processes have come and gone; a session belongs to one of them

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(
        self, model: ir.Model | Path | str | bytes, settings: SessionSettings | None = None
    ) -> IsolatedSession:
        """Open a model in the worker; as `onnxq.runtime.open_session`.

        Large weights go there as arrays, so that neither side writes or parses a message of them.
        """
        settings = settings or SessionSettings()
        parcel = pack(model, settings)
        arguments = {
            "model": parcel.source,
            "weights": dict(parcel.weights),
            "settings": to_fields(settings),
        }
        try:
            return IsolatedSession(self, self.ask("open", arguments))
        finally:
            discard(parcel.folder)  # the worker has mapped it

    def run(
        self, model: ir.Model | Path | str | bytes, feeds: Feeds, settings: SessionSettings | None = None
    ) -> dict[str, Any]:
        """Open a model, run it once, close it."""
        with self.open(model, settings) as session:
            return session.run(feeds)

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Call a module-level function in the worker.

        Args:
            function: Found again in the worker by its module and name.
            arguments: Keyword arguments: None, bools, numbers, strings, bytes, arrays; lists, dicts of them.
        """
        return self.ask(
            "call", {"function": f"{function.__module__}:{function.__qualname__}", "arguments": arguments}
        )

    def ask(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Send one call and wait for its answer.

        Raises:
            BackendError: The worker ended ("crashed", "out-of-memory") or did not answer in time ("timeout").
            OnnxqError: What the call raised there.
        """
        with self._lock:
            forgotten, self._forgotten = self._forgotten, []
            answer = self._exchange([verb, arguments, forgotten])
        if "error" in answer:
            raise _error_from(answer["error"])
        return answer["result"]

    def forget(self, generation: int, number: int) -> None:
        """Let go of a session with the next call; safe to be called from a finalizer."""
        if generation == self.generation:
            self._forgotten.append(number)

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is None:
            return
        self.generation += 1
        self._forgotten = []
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, self._words):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # bytes that nobody will read any more
        self._words = None

    def _exchange(self, call: list[Any]) -> Any:
        process = self._process or self._start()
        box: dict[str, Any] = {}

        def talk() -> None:
            assert process.stdin is not None and process.stdout is not None
            try:
                write_frame(process.stdin, call)
                box["answer"] = read_frame(process.stdout)
            except Exception as error:
                box["failure"] = error

        # A thread, since a pipe can block in both directions and not every system can select on one.
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            thread.join(self.timeout)
        except BaseException:  # Ctrl-C: the worker is in the middle of a call that nobody waits for
            self.close()
            raise
        if "answer" in box:
            return box["answer"]
        failure = box.get("failure")
        if isinstance(failure, TypeError):  # an argument that no frame carries; not a byte was sent
            raise failure
        raise self._bury(process, thread)

    def _bury(self, process: subprocess.Popen[bytes], thread: threading.Thread) -> BackendError:
        """End a worker that did not answer, and say why it did not."""
        late = thread.is_alive()
        if late:
            process.kill()
        thread.join()
        code, words = process.wait(), self._last_words()
        self.close()
        if not late:
            return obituary(code, words)
        return BackendError(
            f"the runtime gave no answer in {self.timeout:g} s and was stopped",
            hint="a longer time limit, or a smaller input",
            slug="timeout",
        )

    def _start(self) -> subprocess.Popen[bytes]:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        paths = [str(_PACKAGE_ROOT), *(path for path in sys.path if path)]
        # -P keeps the current folder, which may hold anything, off the import path.
        command = [sys.executable, "-P", "-m", "onnxq.runtime.worker", str(self.memory_mb or 0)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
        )
        return self._process

    def _last_words(self) -> str:
        if self._words is None:
            return ""
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _TAIL))
        return " ".join(self._words.read().decode(errors="replace").split())


class IsolatedSession:
    """A session in a worker, used as `onnxq.runtime.Session`. Made by `Worker.open`, lost with the worker."""

    def __init__(self, worker: Worker, opened: dict[str, Any]) -> None:
        self._worker = worker
        self._generation = worker.generation
        self._number: int = opened["number"]
        self.inputs = _ports_from(opened["inputs"])
        self.outputs = _ports_from(opened["outputs"])
        self._end = weakref.finalize(self, worker.forget, self._generation, self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once; as `onnxq.runtime.Session.run`."""
        if not self._end.alive:
            raise BackendError("this session is closed", slug="closed")
        if self._generation != self._worker.generation:
            raise BackendError("the worker that held this session has ended", slug="crashed")
        names = None if outputs is None else list(outputs)
        found: dict[str, Any] = self._worker.ask(
            "run", {"number": self._number, "feeds": dict(feeds), "outputs": names}
        )
        return found

    def close(self) -> None:
        """Let the worker forget the session, at its next call."""
        self._end()


def run_isolated(
    model: ir.Model | Path | str | bytes,
    feeds: Feeds,
    settings: SessionSettings | None = None,
    *,
    timeout: float | None = 120.0,
    memory_mb: int | None = None,
) -> dict[str, Any]:
    """Run a model once in a worker of its own.

    Raises:
        BackendError: The worker crashed ("crashed"), or took too long ("timeout") or too much memory
            ("out-of-memory").
    """
    with Worker(timeout=timeout, memory_mb=memory_mb) as worker:
        return worker.run(model, feeds, settings)


def obituary(code: int, words: str) -> BackendError:
    """Why a process of the runtime ended, from its exit code and the last words on its standard error."""
    if code == -getattr(signal, "SIGKILL", 9) or any(sign in words for sign in ("bad_alloc", "MemoryError")):
        return BackendError("the runtime ran out of memory and was ended", slug="out-of-memory")
    known = {item.value for item in signal.Signals}
    name = signal.Signals(-code).name if -code in known else f"exit code {code}"
    return BackendError(
        f"the runtime crashed ({name})" + (f": {words}" if words else ""),
        hint="a crash is a bug of onnxruntime; a lower optimisation level may avoid it",
        slug="crashed",
    )


def _ports_from(rows: list[list[Any]]) -> tuple[Port, ...]:
    return tuple(Port(name, dtype_of(kind), tuple(shape), kind) for name, shape, kind in rows)


def _error_from(fields: dict[str, str]) -> OnnxqError:
    kind: type[OnnxqError] = getattr(errors, fields["kind"], BackendError)
    return kind(fields["message"], hint=fields["hint"], slug=fields["slug"])

"""The child process of `onnxq.runtime.isolate`: reads calls from standard input, answers on standard output.

Started as ``python -m onnxq.runtime.worker [MEGABYTES]``; ends when its input ends.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from onnxq.errors import BackendError, OnnxqError
from onnxq.runtime.frames import read_frame, write_frame
from onnxq.runtime.native import Session, import_onnxruntime, open_native
from onnxq.runtime.settings import from_fields

_OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "out of memory", "cannot allocate", "bfcarena")


class Desk:
    """The sessions that the parent opened here, by number."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._next = 1

    def open(
        self, model: str | bytes, weights: dict[str, np.ndarray], settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Open a model, whose taps are outputs already; the number of the session and its ports."""
        session = open_native(model, from_fields(settings), weights)
        number, self._next = self._next, self._next + 1
        self._sessions[number] = session
        ports = {"inputs": session.inputs, "outputs": session.outputs}
        plain = {key: [[port.name, port.shape, port.kind] for port in group] for key, group in ports.items()}
        return {"number": number, **plain}

    def run(self, number: int, feeds: dict[str, Any], outputs: list[str] | None) -> dict[str, Any]:
        """Run a session once."""
        return self._sessions[number].run(feeds, outputs)

    def forget(self, numbers: list[int]) -> None:
        """Let go of sessions that the parent needs no more."""
        for number in numbers:
            self._sessions.pop(number, None)

    def call(self, function: str, arguments: dict[str, Any]) -> Any:
        """Call a function named as ``"module:function"`` with keyword arguments."""
        module, _, name = function.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found(**arguments)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer calls until the parent hangs up."""
    desk = Desk()
    while True:
        try:
            verb, arguments, forgotten = read_frame(source)
        except EOFError:
            return
        desk.forget(forgotten)
        try:
            answer = {"result": getattr(desk, verb)(**arguments)}
        except Exception as error:
            answer = {"error": _describe(error)}
        write_frame(sink, answer)


def _describe(error: Exception) -> dict[str, str]:
    """An exception as data: its class among onnxq's own errors, and its words."""
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY):
        return {"kind": BackendError.__name__, "message": str(error), "hint": "", "slug": "out-of-memory"}
    if isinstance(error, OnnxqError):
        return {
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "slug": error.slug,
        }
    message = f"{type(error).__name__}: {error}"
    return {"kind": BackendError.__name__, "message": message, "hint": "", "slug": "worker-failed"}


def _limit_memory(megabytes: int) -> None:
    """Refuse this process `megabytes` beyond what it has mapped already; let the kernel end it first."""
    with contextlib.suppress(OSError):  # no Linux, or not allowed: the limit below still holds
        Path("/proc/self/oom_score_adj").write_text("1000")
    if not megabytes:
        return
    try:
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (megabytes << 20),) * 2)


def main() -> None:
    """Take over standard input and output, so that nothing the runtime prints gets between the frames."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import_onnxruntime()
    _limit_memory(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    serve(source, sink)


if __name__ == "__main__":
    main()

"""The other end of `onnxq bench --host`: receives models, times them a process each, and leaves no trace.

Packed into one archive with `stopwatch` and onnxq's `machine`, it is started over ssh in a folder of its own.
Calls come on standard input: a line of JSON, and after "put" the bytes of a file. Answers leave on standard
output, one line of JSON each behind `MARK`, since a login shell may print there too. When the input ends, the
process that is being timed is ended and the folder removed.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

MARK = "onnxq-answer:"
_TAIL = 400
_BLOCK = 1 << 20


class Server:
    """Answers calls in `folder`, until the caller hangs up."""

    def __init__(self, folder: Path, source: BinaryIO, sink: BinaryIO) -> None:
        self._folder = folder
        self._source = source
        self._sink = sink
        self._calls: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._over = False

    def serve(self) -> None:
        """Answer until the input ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            call = self._calls.get()
            if call is None:
                return
            answer = getattr(self, "do_" + call.pop("verb"))(**call)
            self._sink.write((MARK + json.dumps(answer) + "\n").encode())
            self._sink.flush()

    def do_hello(self) -> dict[str, Any]:
        """The machine, and why onnxruntime or numpy cannot be imported, if they cannot."""
        found = {"python": sys.version.split()[0], "executable": sys.executable, "missing": ""}
        try:
            import numpy
            import onnxruntime

            del numpy, onnxruntime
        except ImportError as error:
            found["missing"] = str(error)
            return found
        seen = import_module("machine").read_machine()
        fields = dict(vars(seen), runtime=vars(seen.runtime) if seen.runtime else None)
        return dict(found, machine=fields, free=shutil.disk_usage(str(self._folder)).free)

    def do_put(self, trouble: str) -> dict[str, Any]:
        """A file was received."""
        return {"trouble": trouble}

    def do_pin(self, threads: int) -> dict[str, Any]:
        """Processors for so many threads."""
        return {"cpus": import_module("machine").processors_for(threads)}

    def do_call(self, function: str, job: dict[str, Any], limit: float, **extra: Any) -> dict[str, Any]:
        """Time or trace one model in a process of its own; ``limit`` seconds are the most it may take."""
        paths = {name: str(self._folder / (name + ".json")) for name in ("job", "result")}
        Path(paths["job"]).write_text(json.dumps({"function": function, "job": job, "extra": extra}))
        with open(self._folder / "words", "w+b") as words:
            command = [sys.executable, sys.argv[0], "child", str(self._folder)]
            with self._lock:
                if self._over:
                    return {}
                self._child = subprocess.Popen(command, stdout=words, stderr=words, stdin=subprocess.DEVNULL)
            try:
                code = self._child.wait(limit)
            except subprocess.TimeoutExpired:
                return {"late": True}
            finally:
                self._child.kill()
                self._child.wait()
            if code == 0:
                answer: dict[str, Any] = json.loads(Path(paths["result"]).read_text())
                return answer
            words.seek(max(0, words.seek(0, os.SEEK_END) - _TAIL))
            return {"crashed": code, "words": " ".join(words.read().decode(errors="replace").split())}

    def _listen(self) -> None:
        """Read calls, and the files that come with them; at the end of the input stop what is running."""
        for line in iter(self._source.readline, b""):
            call = json.loads(line)
            if call["verb"] == "put":
                call = {"verb": "put", "trouble": self._receive(call["path"], call["size"])}
            self._calls.put(call)
        with self._lock:
            self._over = True
            if self._child is not None:
                self._child.kill()
        self._calls.put(None)

    def _receive(self, path: str, size: int) -> str:
        """Write the next `size` bytes to a file; what kept that from succeeding."""
        target, trouble = self._folder / path, ""
        if os.path.isabs(path) or ".." in Path(path).parts:
            target, trouble = Path(os.devnull), path + " lies outside"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                while size:
                    block = self._source.read(min(size, _BLOCK))
                    size -= len(block)
                    file.write(block)
                    if not block:
                        break
        except OSError as error:
            trouble = str(error)
        while size > 0:  # what could not be written is still on its way
            block = self._source.read(min(size, _BLOCK))
            size = size - len(block) if block else 0
        return trouble


def work(folder: Path) -> None:
    """Do the one job that lies in `folder`: this is the process that is timed."""
    stopwatch = import_module("stopwatch")
    given = json.loads((folder / "job.json").read_text())
    job = given["job"]
    job["model"] = str(folder / job["model"])
    job["feeds"] = {name: _array(folder, told) for name, told in job["feeds"].items()}
    try:
        answer = {"result": getattr(stopwatch, given["function"])(job, **given["extra"])}
    except stopwatch.Failure as failure:
        answer = {"failure": {"stage": failure.stage, "text": str(failure)}}
    (folder / "result.json").write_text(json.dumps(answer))


def _array(folder: Path, told: Mapping[str, Any]) -> Any:
    import numpy as np

    if "words" in told:
        return np.array(told["words"], dtype=object).reshape(told["shape"])
    return np.fromfile(str(folder / told["file"]), told["dtype"]).reshape(told["shape"])


def main() -> None:
    """Serve, or work where told to; standard output is kept for answers."""
    folder = Path(sys.argv[0]).resolve().parent
    if sys.argv[1:2] == ["child"]:
        work(Path(sys.argv[2]))
        return
    for name in ("SIGHUP", "SIGTERM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
    os.environ["TMPDIR"] = str(folder)  # what onnxruntime keeps for itself goes with the rest
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        Server(folder, sys.stdin.buffer, sink).serve()
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)


if __name__ == "__main__":
    main()

"""A program of ours on another machine, over the system's own ssh: its keys, its settings, its host checks.

Nothing that a user or a model names gets into a shell: ssh is started from a list of words, what it is told
to run there is fixed but for the name of the interpreter, which is quoted, and everything else goes through
the program's standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from onnxq.errors import BackendError, UsageProblem
from onnxq.runtime.remote.runner import MARK

CONNECT_SECONDS = 10
_HELLO_SECONDS = 120.0
_BLOCK = 1 << 20
_TAIL = 400
_OPTIONS = (
    "-T",
    "-oBatchMode=yes",  # a question would wait for an answer that nobody can give
    f"-oConnectTimeout={CONNECT_SECONDS}",
    "-oServerAliveInterval=15",
    "-oServerAliveCountMax=4",
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oForwardX11=no",
)
# Quoted once, for the login shell there: so there is no single quote in it, and no line break.
_START = (
    "import os,runpy,sys,tempfile;"
    'sys.version_info<(3,8)and sys.exit("python-too-old "+sys.version.split()[0]);'
    'd=tempfile.TemporaryDirectory(prefix="onnxq-");p=os.path.join(d.name,"runner.zip");'
    'f=open(p,"wb");f.write(sys.stdin.buffer.read(%d));f.close();'
    'sys.argv=[p];runpy.run_path(p,run_name="__main__")'
)
_HOST = re.compile(
    r"(?P<login>(?:\w[\w.+-]*@)?)(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>\w[\w.-]*))(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)
_NOT_THERE = re.compile(
    "not found|no such file|permission denied|not recognized|cannot execute", re.IGNORECASE
)


@dataclass(frozen=True)
class Host:
    """A machine to log in to.

    Attributes:
        destination: ``user@name``, or a name that the ssh configuration knows.
        port: Its port; None for the configured one.
    """

    destination: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Host:
        """Read ``user@device``, ``device:2222`` or ``user@[fe80::1]:2222``.

        Raises:
            UsageProblem: It is nothing of the kind; a name that ssh would take for an option above all.
        """
        found = _HOST.fullmatch(text)
        port = int(found["port"]) if found and found["port"] else None
        if not found or (port is not None and not 0 < port < 1 << 16):
            raise UsageProblem(
                f"{text!r} is no machine to log in to",
                hint="It is written like user@device, device:2222 or user@[fe80::1]:2222.",
                slug="bad-host",
            )
        return cls(found["login"] + (found["six"] or found["name"]), port)

    def __str__(self) -> str:
        return self.destination


class Link:
    """A running program at the other end. Use it as a context manager.

    Args:
        host: Where.
        program: A Python archive, which is sent there and run.
        python: The interpreter there; ``~/`` stands for the home directory there.
        ssh: The local command, with options of its own if need be.
    """

    def __init__(
        self, host: Host, program: bytes, *, python: str = "python3", ssh: Sequence[str] = ("ssh",)
    ) -> None:
        self.host = host
        self._python = python
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the link
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        try:
            self._process = subprocess.Popen(
                command_for(host, len(program), python, ssh),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
            )
        except OSError as error:
            self._words.close()
            raise BackendError(
                f"cannot start {ssh[0]}: {error.strerror or error}",
                hint="Install an OpenSSH client, e.g. apt install openssh-client.",
                slug="no-ssh",
            ) from None
        threading.Thread(target=self._listen, daemon=True).start()
        self._send([program])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(
        self, verb: str, body: Iterable[Any] = (), patience: float | None = _HELLO_SECONDS, **told: Any
    ) -> dict[str, Any]:
        """Send one call and wait for its answer.

        Args:
            verb: A method of the program.
            body: Bytes that follow the call, in blocks.
            patience: Seconds to wait for the answer; None for as long as the connection lives.
            told: Arguments of the method.

        Raises:
            BackendError: The connection could not be made or broke, or the program is not to be had there.
        """
        self._send([json.dumps({"verb": verb, **told}).encode() + b"\n"])
        self._send(body)
        try:
            answer = self._answers.get(timeout=patience)
        except queue.Empty:
            raise BackendError(
                f"{self.host} gave no answer in {patience:g} s", hint="Is it still there?", slug="timeout"
            ) from None
        if answer is None:
            raise self._obituary()
        return answer

    def close(self) -> None:
        """Hang up: the program there sees its input end, removes its folder and ends."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(CONNECT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._words.close()

    def _send(self, blocks: Iterable[Any]) -> None:
        assert self._process.stdin is not None
        try:
            for block in blocks:
                self._process.stdin.write(block)
            self._process.stdin.flush()
        except OSError:
            raise self._obituary() from None

    def _listen(self) -> None:
        """Collect answers, among whatever else a login shell prints."""
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):  # closed meanwhile
            for line in self._process.stdout:
                if line.startswith(MARK.encode()):
                    self._answers.put(json.loads(line[len(MARK) :]))
        self._answers.put(None)

    def _obituary(self) -> BackendError:
        """Why there is nobody at the other end."""
        try:
            code = self._process.wait(CONNECT_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - _TAIL))
        words = " ".join(self._words.read().decode(errors="replace").split())
        return _explain(code, words, self.host, self._python)


def command_for(host: Host, size: int, python: str, ssh: Sequence[str]) -> list[str]:
    """The words that start a program of `size` bytes, which then comes over standard input.

    Raises:
        UsageProblem: The interpreter's name cannot be one.
    """
    if not python or python.startswith("-") or not python.isprintable():
        raise UsageProblem(
            f"{python!r} is no interpreter", hint="e.g. --host-python ~/venv/bin/python3", slug="bad-host"
        )
    home, name = ("~/", python[2:]) if python.startswith("~/") else ("", python)
    port = [] if host.port is None else ["-p", str(host.port)]
    remote = f"{home}{shlex.quote(name)} -c '{_START % size}'"
    return [*ssh, *_OPTIONS, *port, "--", host.destination, remote]


def blocks_of(data: Any) -> Iterable[Any]:
    """Bytes in blocks, so that a mapped file need not be in memory as a whole."""
    view = memoryview(data).cast("B")
    return (view[start : start + _BLOCK] for start in range(0, len(view), _BLOCK))


def _explain(code: int, words: str, host: Host, python: str) -> BackendError:
    told = f": {words}" if words else ""
    if code in (126, 127) or (code != 255 and _NOT_THERE.search(words)):
        return BackendError(
            f"{host} cannot run {python}{told}",
            hint="Name its Python 3.8 or later: --host-python PATH",
            slug="no-python",
        )
    if "python-too-old" in words:
        version = words.rpartition("python-too-old ")[2].split()[0]
        return BackendError(
            f"{python} on {host} is Python {version}, and 3.8 is needed",
            hint="Name a later one: --host-python PATH",
            slug="no-python",
        )
    if code != 255:
        return BackendError(
            f"the program on {host} ended (exit code {code}){told}", hint="Try it again.", slug="host-failed"
        )
    if "Host key verification failed" in words or "host key" in words.lower():
        hint = f"Log in once by hand and compare the key: ssh {host}"
        return BackendError(f"the key of {host} is not known here{told}", hint=hint, slug="unknown-host-key")
    if "Permission denied" in words or "Too many authentication failures" in words:
        hint = "It has to work without a password: ssh-copy-id, or a key in an agent."
        return BackendError(f"{host} does not let us in{told}", hint=hint, slug="login-refused")
    hint = f"Does this work: ssh {host} true"
    return BackendError(f"cannot reach {host}{told}", hint=hint, slug="unreachable")

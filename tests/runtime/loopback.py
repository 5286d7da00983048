"""A private ssh server on the loopback interface: its own port, host key, login key and folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Server:
    """Where it listens, how to get in, and the folder that is its temporary one."""

    port: int
    folder: Path

    @property
    def host(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def ssh(self) -> tuple[str, ...]:
        return ("ssh", "-F", str(self.folder / "client"))

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server for as long as the context lasts; the test is skipped where none can be had."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH server here (apt install openssh-server)")
    if (
        os.getuid() == 0
    ):  # it separates its privileges then, in a folder that a running service would have made
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = Server(_free_port(), folder)
    _write_settings(server)
    command = [sshd, "-D", "-e", "-f", str(folder / "server")]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait_for(server.port, process, folder / "log")
            yield server
        finally:
            process.terminate()


def _write_settings(server: Server) -> None:
    folder = server.folder
    server.scratch.mkdir()
    for key in ("host", "login"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "authorized").write_text((folder / "login.pub").read_text())
    public = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{server.port} {public}\n")
    (folder / "server").write_text(
        f"ListenAddress 127.0.0.1\nPort {server.port}\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nUsePAM no\n"
        f"SetEnv TMPDIR={server.scratch}\n"
    )
    (folder / "client").write_text(
        f"Host *\n  IdentityFile {folder}/login\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
        "  GlobalKnownHostsFile /dev/null\n"
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            pytest.skip(f"the OpenSSH server here does not start: {log.read_text()[-200:]}")
        time.sleep(0.05)
    pytest.skip("the OpenSSH server here does not listen")


def interpreter(path: Path, *flags: str) -> str:
    """A command that is this Python with flags, such as one that keeps it from its packages."""
    words = " ".join(f"'{word}'" for word in (sys.executable, *flags))
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
    return str(path)

"""Commands as measured objects: how long a process took, and the most memory it held.

On Linux a process inherits the largest resident set of the one that forked it. So the command is started by a
small process, this file run as a program, that holds a dozen megabytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """A process that ended.

    Attributes:
        code: Its exit status.
        seconds: Wall clock.
        peak_mb: Its largest resident set, in megabytes of 10^6 bytes; without its own children.
        output: What it wrote to standard output.
        errors: What it wrote to standard error.
    """

    code: int
    seconds: float
    peak_mb: float
    output: str
    errors: str

    @property
    def failure(self) -> str:
        """The line of standard error that names the error: "error: ...", or the last of a traceback."""
        lines = self.errors.strip().splitlines() or [f"exit status {self.code}"]
        return next((line for line in lines if line.startswith("error: ")), lines[-1])


def run_measured(command: Sequence[str]) -> Finished:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        launcher = [sys.executable, "-I", __file__, str(report)]
        done = subprocess.run([*launcher, *command], check=False, capture_output=True, text=True)
        figures = json.loads(report.read_text())
    return Finished(figures["code"], figures["seconds"], figures["peak_mb"], done.stdout, done.stderr)


def main() -> None:
    """Run the command behind the first argument, and write its figures to the file that argument names."""
    report, *command = sys.argv[1:]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    figures = {
        "code": process.returncode,
        "seconds": time.perf_counter() - begin,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
    }
    Path(report).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()

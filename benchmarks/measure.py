"""Commands as measured objects: how long a process took, and the most memory it held."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass


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
    def last_error(self) -> str:
        """The last line of standard error, which in Python names the error."""
        lines = self.errors.strip().splitlines()
        return lines[-1] if lines else f"exit status {self.code}"


def run_measured(command: Sequence[str]) -> Finished:
    """Run a command to its end."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL)
        # wait4 and not wait: it alone tells the memory of this child and not of all children so far.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        peak = usage.ru_maxrss * 1024 / 1e6
        return Finished(process.returncode, seconds, peak, output.read(), errors.read())

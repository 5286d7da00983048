"""Commands as measured objects: how long a process took, and the most memory it held.

On Linux a process inherits the largest resident set of the one that forked it. So the command is started by a
small process, this file run as a program, that holds a dozen megabytes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Finished:
    """A process that ended.

    Attributes:
        code: Its exit status.
        seconds: Wall clock.
        peak_mb: Largest resident set of it or of any one process it started, in megabytes of 10^6 bytes.
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


def run_measured(
    command: Sequence[str], *, variables: Mapping[str, str] | None = None, limit: float = 0.0
) -> Finished:
    """Run a command to its end, or for so many seconds.

    Args:
        command: The program and its arguments.
        variables: Its environment; that of this process if None.
        limit: Seconds after which it is killed with all that it started; 0 for none.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        launcher = [sys.executable, "-I", __file__, str(report), str(limit)]
        done = subprocess.run(
            [*launcher, *command], check=False, capture_output=True, text=True, env=variables
        )
        figures = json.loads(report.read_text())
    errors = done.stderr + (f"\nerror: stopped after {limit:g} s" if figures["stopped"] else "")
    return Finished(figures["code"], figures["seconds"], figures["peak_mb"], done.stdout, errors)


def main() -> None:
    """Run the command behind the first two arguments; its figures go to the file that the first one names."""
    report, limit, *command = sys.argv[1:]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    stopped = []

    def stop(signal_number: int, frame: FrameType | None) -> None:
        stopped.append(signal_number)
        os.killpg(process.pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, float(limit))
    _, status, usage = os.wait4(process.pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    figures = {
        "code": process.returncode,
        "seconds": time.perf_counter() - begin,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        "stopped": bool(stopped),
    }
    Path(report).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()

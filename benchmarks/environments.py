"""Virtual environments for the tools of others, which cannot all live in one: made once, kept in the cache.

    python -m benchmarks.environments [NAME ...]

Every package that a tool's result hangs on is pinned; what those bring along is as pip chooses, and written
down in `installed.txt` beside the environment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.export import BenchmarkError
from benchmarks.models import cache_folder

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Environment:
    """Packages that are installed together.

    Attributes:
        name: Of its folder in the cache.
        packages: Requirements with exact versions.
    """

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it is or will be; other packages, another folder."""
        digest = hashlib.sha256("\n".join(self.packages).encode()).hexdigest()
        return cache_folder() / "environments" / f"{self.name}-{digest[:12]}"


_ONNX = ("onnx==1.23.2", "numpy==2.4.6", "onnxruntime==1.32.0")
ENVIRONMENTS: Mapping[str, Environment] = {
    each.name: each
    for each in (
        Environment("onnxruntime", (*_ONNX, "sympy==1.14.0")),
        Environment("nncf", (*_ONNX, "nncf==3.4.0", "openvino==2026.4.1")),
    )
}


def python_of(name: str) -> Path:
    """Give the interpreter of an environment, making the environment on the first call.

    Raises:
        BenchmarkError: The name is unknown, or pip could not install the packages.
    """
    if name not in ENVIRONMENTS:
        raise BenchmarkError(f"no environment {name!r}; there are {', '.join(ENVIRONMENTS)}")
    environment = ENVIRONMENTS[name]
    python = environment.folder / "bin" / "python"
    if not _record(environment).exists():
        _make(environment, python)
    return python


def variables() -> dict[str, str]:
    """What a process in such an environment sees of ours: this repository's scripts, and no telemetry."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONNOUSERSITE": "1", "CI": "true"}


def _record(environment: Environment) -> Path:
    """Its list of installed packages, written last: an environment without it is half made."""
    return environment.folder / "installed.txt"


def _make(environment: Environment, python: Path) -> None:
    """Install in place, as an environment cannot be moved."""
    shutil.rmtree(environment.folder, ignore_errors=True)
    environment.folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(environment.folder)], environment)
    _run([str(python), "-m", "pip", "install", "--quiet", *environment.packages], environment)
    _record(environment).write_text(_run([str(python), "-m", "pip", "freeze"], environment))


def _run(command: list[str], environment: Environment) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BenchmarkError(f"environment {environment.name!r} could not be made: {reason}")
    return done.stdout


def main() -> None:
    """Make the environments named on the command line, or all of them."""
    for name in sys.argv[1:] or ENVIRONMENTS:
        print(python_of(name))


if __name__ == "__main__":
    main()

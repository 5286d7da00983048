"""The program as a process: what it imports, how it dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("onnx", "onnx_ir", "onnxruntime", "onnxscript", "rich", "torch", "numpy", "PIL", "tokenizers")

SLEEPER = """
import signal, sys, time, types
import onnxq
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
api = types.ModuleType("onnxq.api")
def optimize(*args, **kwargs):
    print("ready", flush=True)
    time.sleep(60)
api.optimize = optimize
sys.modules["onnxq.api"] = onnxq.api = api
from onnxq.cli import main
main(["optimize", "m.onnx", "--calib", "random"])
"""


def python(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from onnxq.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    assert python("-c", code).stdout.endswith("heavy: []\n")


def test_the_module_runs() -> None:
    result = python("-m", "onnxq", "--help")
    assert result.returncode == 0
    assert "optimize" in result.stdout


def test_the_version_is_told_by_an_installed_package_and_its_lack_by_a_folder() -> None:
    result = python("-m", "onnxq", "--version")
    assert result.returncode == 0
    assert result.stdout.startswith("onnxq")


def test_a_wrong_command_exits_2() -> None:
    result = python("-m", "onnxq", "optimise")
    assert result.returncode == 2
    assert "Did you mean 'optimize'?" in result.stderr


def test_ctrl_c_exits_130_without_a_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors == "onnxq: stopped; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_bug() -> None:
    shell = f"{sys.executable} -m onnxq --help | head -1"
    result = subprocess.run(
        shell, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "bug" not in result.stderr
    assert "Traceback" not in result.stderr

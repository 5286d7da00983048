"""Looking around costs no heavy import. Modules are counted, not seconds, which depend on the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "onnxruntime",
    "onnxscript",
    "onnx_graphsurgeon",
    "PIL",
    "tokenizers",
    "sympy",
    "scipy",
    "sklearn",
)
WEIGHTY = (*HEAVY, "onnx", "onnx_ir", "numpy")


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nsys.stderr.write('\\n'.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return {name.split(".")[0] for name in done.stderr.splitlines()}


def test_the_counting_counts():
    assert "numpy" in loaded_by("import numpy")


def test_importing_the_package_is_light():
    assert not loaded_by("import onnxq") & set(WEIGHTY)


def test_a_worker_knows_no_graphs():
    loaded = loaded_by("import onnxq.runtime.worker, onnxq.runtime.stopwatch")
    assert "numpy" in loaded
    assert not loaded & {*HEAVY, "onnx", "onnx_ir"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["optimize", "--help"]], ids=" ".join)
def test_asking_for_help_is_light(arguments):
    code = f"""
from onnxq.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
"""
    loaded = loaded_by(code)
    assert "click" in loaded
    assert not loaded & set(HEAVY)

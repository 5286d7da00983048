"""What somebody without the extra is told."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["torch"] = None
from onnxq.errors import BackendError
try:
    import onnxq.learn
except BackendError as error:
    print(error.slug, error.hint)
"""


def test_a_missing_torch_is_named_with_the_command_that_brings_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.startswith('no-torch pip install "onnxq[torch]"')

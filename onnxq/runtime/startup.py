"""Whether an execution provider that the runtime lists can be used: its driver may be missing, or too old."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.errors import BackendError
from onnxq.runtime.isolate import Worker
from onnxq.runtime.settings import SessionSettings

_MODEL = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y) { y = Relu(x) }'
_LIMIT = 120.0
"""Seconds; a driver that starts for the first time takes many."""


def failure_of(provider: str) -> str:
    """Why a provider cannot be used, in a line; "" if it can.

    Args:
        provider: A short name of `PROVIDERS`, or the runtime's own.
    """
    with Worker(timeout=_LIMIT) as worker:
        try:
            worker.run(
                ir.from_onnx_text(_MODEL),
                {"x": np.zeros(4, np.float32)},
                SessionSettings(provider=provider),
            )
        except BackendError as error:
            return error.message
    return ""

"""Opening a model in ONNX Runtime, in this process: in memory, as a file, or as bytes."""

from __future__ import annotations

import weakref
from pathlib import Path

import onnx_ir as ir

from onnxq.runtime.delivery import discard, pack
from onnxq.runtime.native import Session, open_native
from onnxq.runtime.settings import SessionSettings


def open_session(model: ir.Model | Path | str | bytes, settings: SessionSettings | None = None) -> Session:
    """Open a model in ONNX Runtime.

    Args:
        model: A model in memory, a file, or the bytes of a file without external data. Never changed.
        settings: Threads, optimisation level, provider and more.

    Raises:
        BackendError: As `onnxq.runtime.native.open_native`.
        UsageProblem: A tap names no value of the model.
    """
    settings = settings or SessionSettings()
    parcel = pack(model, settings)
    try:
        session = open_native(parcel.source, settings, parcel.weights)
    except BaseException:
        discard(parcel.folder)
        raise
    if parcel.folder is not None:  # the runtime maps the weights from there as long as the session lives
        weakref.finalize(session, discard, parcel.folder)
    return session

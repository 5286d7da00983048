"""Where the oracle runs models: in this process, or in a worker that may crash."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import onnx_ir as ir

if TYPE_CHECKING:
    from onnxq.runtime import Level, SessionSettings


class Running(Protocol):
    """A model that is open."""

    def run(self, feeds: Mapping[str, Any], /) -> dict[str, Any]:
        """The outputs by name."""


class Host(Protocol):
    """Something that opens models, single-threaded, so that a run can be repeated to the bit."""

    def open(self, model: ir.Model, level: Level, /) -> Running:
        """Open `model`, optimised by the runtime as far as `level`.

        Raises:
            BackendError: The runtime refuses it, or is not there.
        """


class InProcess:
    """Runs models in this process: quick, and at the mercy of the runtime."""

    def open(self, model: ir.Model, level: Level, /) -> Running:
        """As `Host.open`."""
        from onnxq.runtime import open_session

        return open_session(model, _settings(level))


class Isolated:
    """Runs models in a worker process. Use it as a context manager; one worker serves any number of trials.

    Args:
        timeout: Seconds that one call may take.
    """

    def __init__(self, *, timeout: float = 300.0) -> None:
        from onnxq.runtime.isolate import Worker

        self._worker = Worker(timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()

    def open(self, model: ir.Model, level: Level, /) -> Running:
        """As `Host.open`."""
        return self._worker.open(model, _settings(level))


def _settings(level: Level) -> SessionSettings:
    """One thread; and, without optimisations, no weights laid out beforehand.

    A product with a constant in the layout of its kernel can round otherwise than one with the same numbers
    computed, so that folding a constant would seem to change the model.
    """
    from onnxq.runtime import SessionSettings

    config = (("session.disable_prepacking", "1"),) if level == "disabled" else ()
    return SessionSettings(threads=1, level=level, config=config)

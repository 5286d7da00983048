"""Whether a provider can be used is found out by using it, in a process that may die of it."""

from __future__ import annotations

import pytest

from onnxq.errors import BackendError
from onnxq.runtime import Worker
from onnxq.runtime.startup import failure_of


def test_the_cpu_starts() -> None:
    assert failure_of("cpu") == ""


def test_a_provider_that_is_not_there_fails_with_the_reason() -> None:
    assert "directml" in failure_of("directml")


def test_a_provider_that_takes_its_process_down_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise BackendError("the runtime crashed (SIGSEGV)", slug="crashed")

    monkeypatch.setattr(Worker, "run", crash)
    assert failure_of("cuda") == "the runtime crashed (SIGSEGV)"

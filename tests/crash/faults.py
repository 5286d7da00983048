"""Faults at the border to the operating system: the n-th call that touches the disk kills, tears or fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLS = ("open", "write", "fsync", "chmod", "replace", "unlink", "listdir", "close")

Fault = Callable[[str, tuple[Any, ...], Callable[..., Any]], None]


def kill(name: str, arguments: tuple[Any, ...], call: Callable[..., Any]) -> None:
    """Die before the call, as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after(name: str, arguments: tuple[Any, ...], call: Callable[..., Any]) -> None:
    """Die right after the call; after half of it, if it writes."""
    if name == "write":
        descriptor, data = arguments
        call(descriptor, data[: len(data) // 2])
    else:
        call(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)


def fail(code: int) -> Fault:
    """Refuse the call with `code`."""

    def refuse(name: str, arguments: tuple[Any, ...], call: Callable[..., Any]) -> None:
        if name == "close":
            call(*arguments)  # a close that reports an error has closed all the same
        raise OSError(code, os.strerror(code))

    return refuse


@contextmanager
def fault_at(number: int, fault: Fault) -> Iterator[list[str]]:
    """Let call `number` (from 0) of `CALLS` meet `fault`; gives the names of the calls so far."""
    names: list[str] = []
    real = {name: getattr(os, name) for name in CALLS}

    def intercept(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            names.append(name)
            if len(names) - 1 == number:
                fault(name, arguments, real[name])
            return real[name](*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, intercept(name))
    try:
        yield names
    finally:
        for name in CALLS:
            setattr(os, name, real[name])


def run_in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; gives the signal that killed it, 0 if none did."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the child raised"
    return 0

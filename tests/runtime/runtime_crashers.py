"""Functions that a worker is asked to call in tests, each a way for a process to go wrong."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np


def echo(value: Any) -> Any:
    return value


def process_number() -> int:
    return os.getpid()


def abort() -> None:
    os.abort()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def allocate(megabytes: int) -> int:
    return int(np.ones(megabytes << 20, np.uint8)[:: 1 << 12].sum())


def print_noise() -> str:
    os.write(1, b"noise from native code\n")
    return "still in step"


def fail() -> None:
    raise KeyError("no such thing")

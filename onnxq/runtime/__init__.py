"""ONNX Runtime: sessions, isolated workers, what became of a graph, timing, and the machine underneath.

Everything is imported when it is first used: a worker process takes a session from here and knows no graphs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxq.runtime.feeds import feeds_for
    from onnxq.runtime.hazards import Hazard, hazards_of, probe_pad_into_maxpool
    from onnxq.runtime.isolate import IsolatedSession, Worker, run_isolated
    from onnxq.runtime.latency import Latency
    from onnxq.runtime.machine import Machine, Runtime, read_machine
    from onnxq.runtime.native import Feeds, Port, Session
    from onnxq.runtime.profiling import NodeTime, Profile, profile
    from onnxq.runtime.readback import (
        KERNELS,
        Expected,
        Landing,
        confirm_kernels,
        count_quantized,
        expected_kernels,
        kernels_of,
        optimized_graph,
    )
    from onnxq.runtime.session import open_session
    from onnxq.runtime.settings import PROVIDERS, Level, SessionSettings
    from onnxq.runtime.timing import Contender, Contest, Watch, measure_latency, open_contest
    from onnxq.runtime.traps import Trap, find_miscomputed, find_slow, find_unfused

_HOMES = {
    "feeds_for": "feeds",
    "Hazard": "hazards",
    "hazards_of": "hazards",
    "probe_pad_into_maxpool": "hazards",
    "IsolatedSession": "isolate",
    "Worker": "isolate",
    "run_isolated": "isolate",
    "Latency": "latency",
    "Machine": "machine",
    "Runtime": "machine",
    "read_machine": "machine",
    "Feeds": "native",
    "Port": "native",
    "Session": "native",
    "NodeTime": "profiling",
    "Profile": "profiling",
    "profile": "profiling",
    "Expected": "readback",
    "KERNELS": "readback",
    "Landing": "readback",
    "confirm_kernels": "readback",
    "count_quantized": "readback",
    "expected_kernels": "readback",
    "kernels_of": "readback",
    "optimized_graph": "readback",
    "open_session": "session",
    "Level": "settings",
    "PROVIDERS": "settings",
    "SessionSettings": "settings",
    "Contender": "timing",
    "Contest": "timing",
    "Watch": "timing",
    "measure_latency": "timing",
    "open_contest": "timing",
    "Trap": "traps",
    "find_miscomputed": "traps",
    "find_slow": "traps",
    "find_unfused": "traps",
}

__all__ = [
    "KERNELS",
    "PROVIDERS",
    "Contender",
    "Contest",
    "Expected",
    "Feeds",
    "Hazard",
    "IsolatedSession",
    "Landing",
    "Latency",
    "Level",
    "Machine",
    "NodeTime",
    "Port",
    "Profile",
    "Runtime",
    "Session",
    "SessionSettings",
    "Trap",
    "Watch",
    "Worker",
    "confirm_kernels",
    "count_quantized",
    "expected_kernels",
    "feeds_for",
    "find_miscomputed",
    "find_slow",
    "find_unfused",
    "hazards_of",
    "kernels_of",
    "measure_latency",
    "open_contest",
    "open_session",
    "optimized_graph",
    "probe_pad_into_maxpool",
    "profile",
    "read_machine",
    "run_isolated",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

"""ONNX Runtime: sessions, isolated workers, what became of a graph, timing, and the machine underneath."""

from onnxq.runtime.feeds import feeds_for
from onnxq.runtime.hazards import Hazard, hazards_of, probe_pad_into_maxpool
from onnxq.runtime.isolate import IsolatedSession, Worker, run_isolated
from onnxq.runtime.latency import Latency
from onnxq.runtime.machine import Machine, Runtime, read_machine
from onnxq.runtime.profiling import NodeTime, Profile, profile
from onnxq.runtime.readback import (
    KERNELS,
    Expected,
    Landing,
    confirm_kernels,
    expected_kernels,
    kernels_of,
    optimized_graph,
)
from onnxq.runtime.session import Feeds, Port, Session, open_session
from onnxq.runtime.settings import PROVIDERS, Level, SessionSettings
from onnxq.runtime.timing import Contender, Contest, Watch, measure_latency, open_contest
from onnxq.runtime.traps import Trap, find_miscomputed, find_slow, find_unfused

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

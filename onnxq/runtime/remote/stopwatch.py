"""The stopwatch: opens a model, warms it up and runs it, in the process that calls it.

It runs in a worker process of this machine, and as a copy on other machines, where there is Python 3.8 or
later, onnxruntime and numpy and nothing else. So it imports nothing of onnxq.
"""

from __future__ import annotations

import gc
import json
import os
import re
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # evaluated, these need a later Python than the copy may find
    from collections.abc import Callable, Mapping

    Job = Mapping[str, Any]
    Run = Callable[[], Any]

_LEAST_RUNS = 5
_MOST_RUNS = 20_000
_WINDOW = 5
"""Runs that are compared with as many runs before them to see whether a model still gets faster."""
_SETTLED = 0.97
_KERNEL = re.compile("_kernel_time$")
_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_DEVICES = {
    _CUDA: "cuda",
    _TENSORRT: "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
    "ROCMExecutionProvider": "cuda",
    "MIGraphXExecutionProvider": "cuda",
    "DmlExecutionProvider": "dml",
}
"""Providers with memory of their own, and what the runtime calls that memory."""
_FOREIGN = re.compile("float8|float4|bfloat16|int4|int2")


class Failure(Exception):
    """The runtime complained; `stage` is "load" or "run".

    Or "provider" for one that could not be started, "affinity" for processors that are not to be had.
    """

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(text)
        self.stage = stage


def time_runs(job: Job) -> dict[str, Any]:
    """Open a model, run it until it no longer gets faster, and then for some time.

    Args:
        job: ``model``: a path. ``feeds``: an array for each input; ``foreign``: the number ONNX gives the
            type of each that numpy lacks. ``provider``: the runtime's name of it; ``provider_options``.
            ``threads``, ``level``, ``disabled_optimizers``, ``config``: those of onnxq's `SessionSettings`.
            ``cpus``: processors to keep to, any if empty. ``seconds``: how long to measure. ``warmup``: the
            longest warm-up in seconds; the shortest is a third of ``seconds``, and two runs.

    Returns:
        ``times_ns`` of each run; ``load_ms``; ``warmup_runs`` and whether the model ``settled`` in them;
        ``io``: "host", or "device" if inputs and outputs stayed in the accelerator's memory; ``peak_rss_mb``
        and ``loaded_mb``: the largest memory of this process and what opening the model added to it, 0 where
        the system does not tell.

    Raises:
        Failure: The runtime refuses the model, or fails while running it.
    """
    _pin(job["cpus"])
    import onnxruntime

    del onnxruntime  # its own memory and the time its import takes are not the model's
    before = _memory_mb("VmRSS")
    start = time.perf_counter_ns()
    session = _open(job, None)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    loaded = _memory_mb("VmRSS") - before
    run, io = _prepare(session, job)
    gc.collect()
    gc.disable()
    warmup_runs, settled = _warm_up(run, job["seconds"] / 3, job["warmup"])
    times = _run_for(run, job["seconds"])
    return {
        "times_ns": times,
        "load_ms": load_ms,
        "warmup_runs": warmup_runs,
        "settled": settled,
        "io": io,
        "loaded_mb": max(loaded, 0.0),
        "peak_rss_mb": _memory_mb("VmHWM"),
    }


def trace_runs(job: Job, runs: int) -> list[dict[str, Any]]:
    """Run a model with the runtime's tracing on.

    Returns:
        One entry for each execution of an operator in `runs` + 1 runs, in order: node, op, provider, index in
        the optimised graph, us.
    """
    _pin(job["cpus"])
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        session = _open(job, os.path.join(folder, "trace"))
        run, _ = _prepare(session, dict(job, provider=_CPU))  # a trace says nothing of copies
        for _ in range(runs):  # it has run once to be ready
            run()
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    kernels = (event for event in events if event.get("cat") == "Node" and _KERNEL.search(event["name"]))
    return [_entry(event) for event in kernels]


def _pin(cpus: list[int]) -> None:
    """Keep this process to some processors, where there is a choice."""
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    missing = sorted(set(cpus) - allowed)
    if missing:
        raise Failure("affinity", f"{missing}, where it may use {sorted(allowed)}")
    os.sched_setaffinity(0, cpus)


def _entry(event: dict[str, Any]) -> dict[str, Any]:
    details = event["args"]
    return {
        "node": _KERNEL.sub("", event["name"]),
        "op": details["op_name"],
        "provider": details.get("provider", ""),
        "index": int(details.get("node_index", -1)),
        "us": float(event["dur"]),
    }


def _open(job: Job, trace_to: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong arrives as an exception
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[job["level"]])
    for key, value in job["config"]:
        options.add_session_config_entry(key, value)
    if trace_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = trace_to
    wanted = [(job["provider"], dict(job["provider_options"]))]
    fallback: list[Any] = [] if job["provider"] == _CPU else [(_CPU, {})]
    if job["provider"] == _TENSORRT and _CUDA in onnxruntime.get_available_providers():
        fallback.insert(0, (_CUDA, {}))  # what TensorRT does not take is not a matter for the CPU
    try:
        session = onnxruntime.InferenceSession(
            job["model"],
            options,
            providers=wanted + fallback,
            disabled_optimizers=list(job["disabled_optimizers"]),
            enable_fallback=0,  # else an error of the provider ends in a session of other settings
        )
    except Exception as error:  # the runtime raises a dozen unrelated classes
        raise Failure("load", str(error)) from None
    if job["provider"] not in session.get_providers():
        raise Failure("provider", job["provider"])
    return session


def _prepare(session: Any, job: Job) -> tuple[Run, str]:
    """What one run is, and where its inputs and outputs lie."""
    feeds, outputs = dict(job["feeds"]), [output.name for output in session.get_outputs()]
    kinds = [port.type for port in (*session.get_inputs(), *session.get_outputs())]
    if any(_FOREIGN.search(kind) for kind in kinds):
        values = {name: _value_of(array, job["foreign"].get(name)) for name, array in feeds.items()}
        return _guarded(lambda: session.run_with_ort_values(outputs, values)), "host"
    device = _DEVICES.get(job["provider"])
    if device and all(kind.startswith("tensor(") and "string" not in kind for kind in kinds):
        number = int(job["provider_options"].get("device_id", 0))
        return _guarded(_bound(session, feeds, outputs, device, number)), "device"
    return _guarded(lambda: session.run(outputs, feeds)), "host"


def _bound(session: Any, feeds: Mapping[str, Any], outputs: list[str], device: str, number: int) -> Run:
    """A run whose inputs lie on the device already, and whose outputs stay there."""
    import onnxruntime

    binding = session.io_binding()
    for name, array in feeds.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, number)
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name, device, number)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _guarded(run: Run) -> Run:
    """`run` that has shown once that it works; what the runtime says otherwise is a `Failure`."""
    try:
        run()
    except Exception as error:  # the runtime raises a dozen unrelated classes
        raise Failure("run", str(error)) from None
    return run


def _value_of(array: Any, number: Any) -> Any:
    import onnxruntime

    if number is None:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, number)


def _warm_up(run: Run, shortest: float, longest: float) -> tuple[int, bool]:
    """Run until the last runs are no faster than those before; how often, and whether that was reached."""
    clock = time.perf_counter
    times: list[float] = []
    start = before = clock()
    while True:
        run()
        now = clock()
        times.append(now - before)
        before, spent = now, now - start
        settled = len(times) >= 2 * _WINDOW and min(times[-_WINDOW:]) >= _SETTLED * min(
            times[-2 * _WINDOW : -_WINDOW]
        )
        if len(times) >= 2 and (spent >= max(shortest, longest) or (spent >= shortest and settled)):
            return len(times), settled or len(times) < 2 * _WINDOW


def _run_for(run: Run, seconds: float) -> list[int]:
    """Run for some seconds and at least `_LEAST_RUNS` times; nanoseconds of each run."""
    clock = time.perf_counter_ns
    times: list[int] = []
    end = clock() + int(seconds * 1e9)
    while len(times) < _LEAST_RUNS or (clock() < end and len(times) < _MOST_RUNS):
        start = clock()
        run()
        times.append(clock() - start)
    return times


def _memory_mb(field: str) -> float:
    """A field of this process's status; `getrusage` would give a child that of its parent."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            found = re.search(field + r":\s+(\d+) kB", file.read())
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0

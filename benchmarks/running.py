"""Runs one model in one runtime and one process, for whoever asks; in any environment that has the runtime.

    python -m benchmarks.running time SPEC     warm up, run for some seconds, print times as JSON
    python -m benchmarks.running answer SPEC   answer batches: an .npz on stdin, one on stdout, until the end

SPEC is a JSON object: `runtime`, `model`, `settings`, `threads`, and to be timed `feeds` (an .npz file),
`seconds` and `cpus`. Imports nothing else of the benchmarks, so that every runtime is timed by the same loop
in an environment of its own.
"""

from __future__ import annotations

import gc
import io
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

Arrays = dict[str, np.ndarray]
Spec = Mapping[str, Any]
Model = tuple[list[str], Callable[[Arrays], np.ndarray]]
"""Names of the inputs, and what gives the first output for them."""
LEAST_RUNS = 5
LENGTH = struct.Struct("<Q")


def open_onnxruntime(spec: Spec) -> Model:
    """Open a session as users get it by default, but for the number of threads."""
    import onnxruntime

    settings = dict(spec["settings"])
    disabled = settings.pop("disabled_optimizers", [])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    options.log_severity_level = 3
    if spec.get("patient"):  # threads sleep while they wait: other work may run beside it
        settings["session.intra_op.allow_spinning"] = "0"
    for name, value in settings.items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(
        spec["model"], options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    names = [each.name for each in session.get_inputs()]
    return names, lambda feeds: session.run(None, feeds)[0]


def open_openvino(spec: Spec) -> Model:
    """Compile for latency; nothing is copied on the way in or out."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": spec["threads"], **spec["settings"]}
    compiled = openvino.Core().compile_model(spec["model"], "CPU", settings)
    request = compiled.create_infer_request()
    names = [each.node.friendly_name for each in compiled.inputs]  # a port may carry a later tensor's name
    return names, lambda feeds: request.infer(
        [feeds[name] for name in names], share_inputs=True, share_outputs=True
    )[0]


RUNTIMES: Mapping[str, Callable[[Spec], Model]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}


def time_model(spec: Spec) -> dict[str, Any]:
    """Open a model, warm it up for a third of the time, and measure run after run."""
    if spec["cpus"]:
        os.sched_setaffinity(0, spec["cpus"])
    start = time.perf_counter_ns()
    names, run = RUNTIMES[spec["runtime"]](spec)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    with np.load(spec["feeds"], allow_pickle=False) as file:
        feeds = {name: file[name] for name in names}
    gc.collect()
    gc.disable()
    _run_for(run, feeds, spec["seconds"] / 3, least=2)
    times = np.array(_run_for(run, feeds, spec["seconds"], least=LEAST_RUNS)) / 1e6
    return {
        "least_ms": float(times.min()),
        "median_ms": float(np.median(times)),
        "runs": len(times),
        "load_ms": load_ms,
        "peak_rss_mb": _peak_rss_mb(),
    }


def answer(spec: Spec, read: IO[bytes], write: IO[bytes]) -> None:
    """Run the batches that come in; each message is its length in eight bytes, then an .npz."""
    names, run = RUNTIMES[spec["runtime"]]({**spec, "patient": True})
    while (feeds := receive(read)) is not None:
        send(write, {"output": np.asarray(run({name: feeds[name] for name in names}))})


def send(write: IO[bytes], arrays: Arrays) -> None:
    """Write one message."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]  # numpy types its keywords as if all were its own
    write.write(LENGTH.pack(packed.tell()))
    write.write(packed.getbuffer())
    write.flush()


def receive(read: IO[bytes]) -> Arrays | None:
    """Read one message; None at the end."""
    head = read.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    with np.load(io.BytesIO(read.read(LENGTH.unpack(head)[0])), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _run_for(run: Callable[[Arrays], np.ndarray], feeds: Arrays, seconds: float, least: int) -> list[int]:
    clock, times = time.perf_counter_ns, list[int]()
    end = clock() + int(seconds * 1e9)
    while len(times) < least or clock() < end:
        start = clock()
        run(feeds)
        times.append(clock() - start)
    return times


def _peak_rss_mb() -> float:
    """Largest resident memory of this process; `getrusage` would give it that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Do what the command line says; what a runtime prints goes to standard error."""
    verb, spec = sys.argv[1], json.loads(sys.argv[2])
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        if verb == "time":
            out.write(json.dumps(time_model(spec)).encode())
        else:
            answer(spec, sys.stdin.buffer, out)


if __name__ == "__main__":
    main()

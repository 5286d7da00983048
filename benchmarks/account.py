"""Where a model's time goes, operator by operator, against what this machine can do at most.

    python -m benchmarks.account MODEL BATCHxLENGTH [THREADS]

The peaks are those of one large product of integers (uint8 times int8) and one of floats, in the same runtime
with as many threads, timed before and after: on a shared machine they move. Multiply-adds of products come
from the shapes that the runtime ran with. Prints Markdown.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.markdown import table

if TYPE_CHECKING:
    import onnxruntime

RUNS = 15
LARGE = (512, 1024, 1024)
"""Rows, channels and columns of the products that are the peaks."""


@dataclass
class Line:
    """One kind of operator: how many nodes, microseconds a run, multiply-adds of its products."""

    nodes: int = 0
    us: float = 0.0
    macs: float = 0.0


def peak(threads: int, *, integers: bool) -> float:
    """Multiply-adds a microsecond of one large product, the best of many runs."""
    rows, channels, columns = LARGE
    random = np.random.default_rng(0)
    constants: dict[str, np.ndarray]
    if integers:
        constants = {
            "w": random.integers(-127, 128, (channels, columns)).astype(np.int8),
            "a": np.array(0.01, np.float32),
            "b": np.full(columns, 0.01, np.float32),
            "z": np.array(128, np.uint8),
        }
        node = helper.make_node(
            "MatMulIntegerToFloat", ["x", "w", "a", "b", "z"], ["y"], domain="com.microsoft"
        )
        kind, given = TensorProto.UINT8, random.integers(0, 256, (rows, channels)).astype(np.uint8)
    else:
        constants = {"w": random.normal(size=(channels, columns)).astype(np.float32)}
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        kind, given = TensorProto.FLOAT, random.normal(size=(rows, channels)).astype(np.float32)
    graph = helper.make_graph(
        [node],
        "peak",
        [helper.make_tensor_value_info("x", kind, [rows, channels])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, columns])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    session = _session(model.SerializeToString(), threads)
    taken = []
    for _ in range(2 * RUNS):
        begin = time.perf_counter()
        session.run(None, {"x": given})
        taken.append(time.perf_counter() - begin)
    return float(rows * channels * columns / min(taken) / 1e6)


def account(model: Path, shape: tuple[int, int], threads: int) -> tuple[dict[str, Line], float]:
    """Time by operator of a default session, and the least milliseconds of a whole run without tracing.

    Each node counts with its best run.
    """
    feeds = _feeds(_session(str(model), 1), shape)
    plain = _session(str(model), threads)
    taken = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        plain.run(None, feeds)
        taken.append(time.perf_counter() - begin)
    del plain
    with tempfile.TemporaryDirectory() as folder:
        traced = _session(str(model), threads, trace=f"{folder}/trace")
        for _ in range(RUNS):
            traced.run(None, feeds)
        events = json.loads(Path(traced.end_profiling()).read_text())
    return _lines(events), min(taken) * 1e3


def _lines(events: list[dict[str, Any]]) -> dict[str, Line]:
    """The trace of several runs, node by node."""
    nodes: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.setdefault(f"{event['args']['node_index']} {event['name']}", []).append(event)
    found: dict[str, Line] = {}
    for runs in nodes.values():
        arguments = runs[0]["args"]
        line = found.setdefault(arguments["op_name"], Line())
        line.nodes += 1
        line.us += min(event["dur"] for event in runs[1:])
        line.macs += _macs(arguments)
    return dict(sorted(found.items(), key=lambda item: -item[1].us))


def _macs(arguments: Mapping[str, Any]) -> float:
    """Multiply-adds of a product, from the shapes of its inputs and outputs."""
    inputs = [shape for each in arguments.get("input_type_shape", ()) for shape in each.values()]
    outputs = [shape for each in arguments.get("output_type_shape", ()) for shape in each.values()]
    kind = arguments["op_name"]
    if kind in ("Attention", "MultiHeadAttention"):
        batch, queries, width = inputs[0]
        return float(2 * batch * queries * inputs[1][1] * width)
    if kind in ("MatMulIntegerToFloat", "MatMul", "FusedMatMul", "Gemm", "MatMulNBits"):
        return float(np.prod(outputs[0]) * inputs[0][-1])
    return 0.0


def report(model: Path, shape: tuple[int, int], threads: int) -> str:
    """The account as a table, with its sum and the peaks around it."""
    before = [peak(threads, integers=integers) for integers in (True, False)]
    lines, least = account(model, shape, threads)
    after = [peak(threads, integers=integers) for integers in (True, False)]
    integer, floating = (max(pair) for pair in zip(before, after, strict=True))
    total = sum(line.us for line in lines.values())
    rows = []
    for kind, line in lines.items():
        best = integer if "Integer" in kind or kind == "MatMulNBits" else floating
        ideal = line.macs / best
        share = f"{ideal / line.us:.0%}" if line.macs else ""
        rows.append([kind, str(line.nodes), f"{line.us / 1e3:.2f}", f"{line.us / total:.1%}", share])
    bound = sum(line.macs / (integer if "Integer" in kind else floating) for kind, line in lines.items())
    text = table(("operator", "nodes", "ms", "share", "of the peak"), rows)
    peaks = f"Peaks: {2 * integer / 1e3:.0f} Gop/s of integers, {2 * floating / 1e3:.0f} of floats"
    drift = " and ".join(
        f"{2 * first / 1e3:.0f} to {2 * last / 1e3:.0f}" for first, last in zip(before, after, strict=True)
    )
    return (
        f"{model.name} at {shape[0]}x{shape[1]}, {threads} threads: {least:.2f} ms, "
        f"operators {total / 1e3:.2f} ms, "
        f"products at their peaks {bound / 1e3:.2f} ms.\n{peaks} (before to after: {drift}).\n\n{text}\n"
    )


def _feeds(session: onnxruntime.InferenceSession, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random numbers of every input; a mask that hides a quarter of half of the samples."""
    random = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for port in session.get_inputs():
        size = [*shape, *port.shape[2:]] if len(port.shape) > 1 else [shape[0]]
        if "mask" in port.name:
            feeds[port.name] = np.ones(size, np.int64)
            feeds[port.name][(shape[0] + 1) // 2 :, shape[1] * 3 // 4 :] = 0
        elif "int64" in port.type:
            top = 2 if "type" in port.name else 20000
            feeds[port.name] = random.integers(0, top, size).astype(np.int64)
        else:
            feeds[port.name] = random.normal(size=size).astype(np.float32)
    return feeds


def _session(model: str | bytes, threads: int, trace: str = "") -> onnxruntime.InferenceSession:
    """A default session with so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if trace:
        options.enable_profiling = True
        options.profile_file_prefix = trace
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """The account of one model at one shape."""
    model, size, *threads = sys.argv[1:]
    batch, length = (int(part) for part in size.split("x"))
    print(report(Path(model), (batch, length), int(threads[0]) if threads else 2))


if __name__ == "__main__":
    main()

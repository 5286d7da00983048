"""Where a model's time goes, operator by operator, against what this machine can do at most.

    python -m benchmarks.account NAME=FILE ... --shapes BATCHxLENGTH ... [--threads 2] [-o FILE]

The peaks are those of one large product of integers (uint8 times int8) and one of floats, in the same runtime
with as many threads, timed before and after: on a shared machine they move. Multiply-adds of products come
from the shapes that the runtime ran with. Prints Markdown; `-o` writes the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.markdown import table
from benchmarks.rivals import environment

if TYPE_CHECKING:
    import onnxruntime

RUNS = 15
Account = dict[str, Any]
"""`shape`, `least_ms`, `peaks_gop_per_s` and `operators`, as `measure` gives them."""
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
        keys = inputs[1][-2]  # [batch, positions, channels], or [batch, heads, positions, channels]
        return float(2 * np.prod(inputs[0]) * keys)
    if kind in ("MatMulIntegerToFloat", "MatMul", "FusedMatMul", "Gemm", "MatMulNBits"):
        return float(np.prod(outputs[0]) * inputs[0][-1])
    return 0.0


def measure(model: Path, shape: tuple[int, int], threads: int) -> Account:
    """The account of one model at one shape, with the peaks before and after it."""
    before = [peak(threads, integers=integers) for integers in (True, False)]
    lines, least = account(model, shape, threads)
    after = [peak(threads, integers=integers) for integers in (True, False)]
    peaks = {
        kind: {"before": 2 * first / 1e3, "after": 2 * last / 1e3}
        for kind, first, last in zip(("integer", "float"), before, after, strict=True)
    }
    operators = {
        kind: {"nodes": line.nodes, "ms": line.us / 1e3, "gop": 2 * line.macs / 1e9}
        for kind, line in lines.items()
    }
    return {
        "shape": f"{shape[0]}x{shape[1]}",
        "least_ms": least,
        "peaks_gop_per_s": peaks,
        "operators": operators,
    }


def render(name: str, found: Account) -> str:
    """An account as Markdown: what each kind of operator takes, and how near its products are to the peak."""
    peaks = {kind: max(each.values()) for kind, each in found["peaks_gop_per_s"].items()}
    operators = found["operators"]
    total = sum(line["ms"] for line in operators.values())
    rows, bound = [], 0.0
    for kind, line in operators.items():
        ideal = 1e3 * line["gop"] / peaks["integer" if _computes_integers(kind) else "float"]
        bound += ideal
        share = f"{ideal / line['ms']:.0%}" if line["gop"] else ""
        rows.append([kind, str(line["nodes"]), f"{line['ms']:.2f}", f"{line['ms'] / total:.1%}", share])
    drift = " and ".join(
        f"{each['before']:.0f} to {each['after']:.0f}" for each in found["peaks_gop_per_s"].values()
    )
    return (
        f"`{name}` at {found['shape']}: a run takes {found['least_ms']:.2f} ms at least, its operators "
        f"{total:.2f} ms, and its products would take {bound:.2f} ms at the peaks of {peaks['integer']:.0f} "
        f"Gop/s of integers and {peaks['float']:.0f} of floats (before to after: {drift}).\n\n"
        f"{table(('operator', 'nodes', 'ms', 'share', 'of the peak'), rows)}"
    )


def _computes_integers(kind: str) -> bool:
    return "Integer" in kind or kind == "MatMulNBits"


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


def main(arguments: Sequence[str] | None = None) -> None:
    """The accounts of the models at the shapes named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--shapes", nargs="+", required=True, metavar="BATCHxLENGTH")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    shapes = [tuple(map(int, shape.split("x"))) for shape in given.shapes]
    accounts: dict[str, list[Account]] = {}
    for name, path in (each.split("=", 1) for each in given.models):
        for batch, length in shapes:
            found = measure(Path(path), (batch, length), given.threads)
            accounts.setdefault(name, []).append(found)
            print(render(name, found), end="\n\n")
    if given.output is not None:
        result = {"environment": environment() | {"threads": given.threads}, "accounts": accounts}
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

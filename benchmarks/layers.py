"""A stack of BERT-base layers with random weights: fp32 as an exporter spells it against onnxq's INT8.

    python -m benchmarks.layers [BATCHxLENGTH ...]
    python -m benchmarks.layers prepare

Random weights have no outliers, so every linear becomes one integer product with a scale for its tensor: what
is timed are the kernels and everything around them, not what fidelity costs. Both files run in a default
session of ONNX Runtime. Writes benchmarks/results/layers.json; shapes not named keep what is there.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from benchmarks.data import save as save_arrays
from benchmarks.models import cache_folder
from benchmarks.rivals import RESULTS, environment

SHAPES = ((1, 128), (1, 512), (8, 128))
THREADS, SECONDS = 2, 2.0


@dataclass(frozen=True)
class Stack:
    """Sizes of an encoder, those of BERT-base by default."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    inner: int = 3072
    seed: int = 0


@dataclass
class Graph:
    """A graph that is being written down."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, array: np.ndarray) -> str:
        """An initializer."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of its output."""
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def scalar(self, number: float) -> str:
        """A constant of no axes."""
        return self.constant(np.array(number, np.float32))

    def linear(self, value: str, channels: int, columns: int) -> str:
        """``value @ weight + bias``."""
        weight = self.random.normal(0, 1 / math.sqrt(channels), (channels, columns)).astype(np.float32)
        bias = self.random.normal(0, 0.1, columns).astype(np.float32)
        return self.add("Add", self.add("MatMul", value, self.constant(weight)), self.constant(bias))

    def norm(self, value: str, width: int) -> str:
        """Layer norm with gamma and beta near 1 and 0."""
        gamma, beta = (self.random.normal(mean, 0.1, width).astype(np.float32) for mean in (1, 0))
        gains = (self.constant(gamma), self.constant(beta))
        return self.add("LayerNormalization", value, *gains, axis=-1, epsilon=1e-12)


def build(stack: Stack) -> onnx.ModelProto:
    """The stack in opset 17: hidden states and a mask of keys in, hidden states out."""
    graph = Graph(np.random.default_rng(stack.seed))
    lowest = graph.scalar(float(np.finfo(np.float32).min))
    masked = graph.add("Sub", graph.scalar(1), graph.add("Cast", "attention_mask", to=TensorProto.FLOAT))
    axes = graph.constant(np.array([1, 2], np.int64))
    mask = graph.add("Unsqueeze", graph.add("Mul", masked, lowest), axes)
    value = graph.norm("hidden", stack.hidden)
    for _ in range(stack.layers):
        value = _layer(graph, value, mask, stack)
    graph.nodes.append(helper.make_node("Identity", [value], ["last_hidden_state"], "last"))
    kind, shape = TensorProto.FLOAT, ("batch", "sequence", stack.hidden)
    inputs = [
        helper.make_tensor_value_info("hidden", kind, shape),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"]),
    ]
    outputs = [helper.make_tensor_value_info("last_hidden_state", kind, shape)]
    made = helper.make_graph(graph.nodes, "stack", inputs, outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _layer(graph: Graph, value: str, mask: str, stack: Stack) -> str:
    """Attention and feed-forward, each with a residual and a norm behind it."""
    size = stack.hidden // stack.heads
    split = graph.constant(np.array([0, 0, stack.heads, size], np.int64))
    query, key, values = (
        graph.add("Transpose", graph.add("Reshape", made, split), perm=order)
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        for made in [graph.linear(value, stack.hidden, stack.hidden)]
    )
    scores = graph.add("Div", graph.add("MatMul", query, key), graph.scalar(math.sqrt(size)))
    weights = graph.add("Softmax", graph.add("Add", scores, mask), axis=-1)
    context = graph.add("Transpose", graph.add("MatMul", weights, values), perm=[0, 2, 1, 3])
    merged = graph.add("Reshape", context, graph.constant(np.array([0, 0, stack.hidden], np.int64)))
    value = graph.norm(
        graph.add("Add", graph.linear(merged, stack.hidden, stack.hidden), value), stack.hidden
    )
    inner = graph.linear(value, stack.hidden, stack.inner)
    bell = graph.add("Erf", graph.add("Div", inner, graph.scalar(math.sqrt(2))))
    half = graph.add("Mul", inner, graph.add("Add", bell, graph.scalar(1)))
    outer = graph.linear(graph.add("Mul", half, graph.scalar(0.5)), stack.inner, stack.hidden)
    return graph.norm(graph.add("Add", outer, value), stack.hidden)


def feeds(batch: int, length: int, width: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Random hidden states; half of the samples of a batch are three quarters as long."""
    random = np.random.default_rng(seed)
    mask = np.ones((batch, length), np.int64)
    mask[(batch + 1) // 2 :, length * 3 // 4 :] = 0
    hidden = random.normal(size=(batch, length, width)).astype(np.float32)
    return {"hidden": hidden, "attention_mask": mask}


def quantize(model: Path, output: Path, width: int) -> None:
    """The passes of `onnxq optimize` for this machine's kernels, every linear in its fastest form."""
    from onnxq.calibration import collect, open_data
    from onnxq.files import load, save
    from onnxq.passes.clean import cleaning
    from onnxq.passes.layout import finishing, respelling
    from onnxq.passes.quantize.linears import QuantizeLinears
    from onnxq.pipeline import run

    npz = output.with_suffix(".npz")
    save_arrays(npz, feeds(8, 64, width, seed=2))
    source = load(model)
    linears = QuantizeLinears(rounding="nearest")  # how weights are rounded changes no latency
    passes = (*cleaning(), *respelling("kernels"), linears, *finishing("kernels"))
    calibration = open_data(npz, source)
    result = run(
        source, passes, gather=lambda state, wanted: collect(state, calibration, wanted), verify="never"
    )
    save(result.model, output)


def prepare(stack: Stack) -> dict[str, Path]:
    """Both files, made anew where the cache has none."""
    from onnxq.files import save

    folder = cache_folder() / "layers"
    folder.mkdir(parents=True, exist_ok=True)
    models = {name: folder / f"{name}.onnx" for name in ("fp32", "onnxq")}
    if not models["fp32"].exists():
        save(ir.from_proto(build(stack)), models["fp32"])
    if not models["onnxq"].exists():
        quantize(models["fp32"], models["onnxq"], stack.hidden)
    return models


def measure(shapes: Sequence[tuple[int, int]], stack: Stack) -> list[dict[str, Any]]:
    """Least and median milliseconds of both models at each shape."""
    from onnxq.runtime import Latency, measure_latency

    def told(latency: Latency) -> dict[str, float]:
        return {
            "least_ms": round(latency.least_ms, 3),
            "median_ms": round(latency.median_ms, 3),
            "speedup_least": round(latency.speedup_least, 2),
            "speedup_median": round(latency.speedup_median, 2),
        }

    models, rows = prepare(stack), []
    for batch, length in shapes:
        given = feeds(batch, length, stack.hidden)
        found = measure_latency(models, given, threads=THREADS, rounds=3, seconds=SECONDS)
        rows.append({"shape": f"{batch}x{length}", **{name: told(each) for name, each in found.items()}})
    return rows


def main() -> None:
    """Measure the shapes on the command line, or all; with "prepare" only make the files."""
    if sys.argv[1:] == ["prepare"]:
        print(*prepare(Stack()).values())
        return
    words = [word.split("x") for word in sys.argv[1:]]
    shapes = [(int(batch), int(length)) for batch, length in words] or SHAPES
    path = RESULTS / "layers.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    stack = Stack()
    rows = {row["shape"]: row for row in (*kept, *measure(shapes, stack))}
    found = {"stack": asdict(stack), "environment": environment(), "rows": list(rows.values())}
    path.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows.values():
        print(row["shape"], row["fp32"], row["onnxq"])


if __name__ == "__main__":
    main()

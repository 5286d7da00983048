"""Models and data for the API: exports of tiny transformers, and the digits that ship with onnxq."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

import onnxq.demo
from onnxq.files import load
from tests.graphs import model_of
from tests.ir.test_exporters import load as load_export

Feeds = list[dict[str, np.ndarray]]


def export(name: str, opset: int = 18, dynamo: bool = True) -> ir.Model:
    """One of `tests.ir.exported`: post, pre, decoder, crossed."""
    return load_export(name, opset, dynamo)


def data_for(name: str, count: int = 12) -> Feeds:
    """Runs of two samples each, lengths 3 to 6, no two alike."""
    random = np.random.default_rng(5)
    return [_feed(name, random, 3 + number % 4) for number in range(count)]


def _feed(name: str, random: np.random.Generator, length: int) -> dict[str, np.ndarray]:
    if name == "crossed":
        sizes = {"source": (2, length, 16), "target": (2, length + 1, 16)}
        return {key: random.normal(size=size).astype(np.float32) for key, size in sizes.items()}
    tokens = {"tokens": random.integers(0, 30, (2, length))}
    mask = np.ones((2, length), np.float32)
    mask[1, length - 1 :] = 0
    return tokens if name == "decoder" else tokens | {"mask": mask}


def digits() -> ir.Model:
    return load(onnxq.demo.model_path())


def digits_without_names() -> onnx.ModelProto:
    """The same as exporters write it that give nodes no names."""
    proto = ir.to_proto(digits())
    for node in proto.graph.node:
        node.ClearField("name")
    return proto


def small() -> ir.Model:
    """A norm, two linears and a Gelu-less activation between them, in text form."""
    random = np.random.default_rng(0)
    arrays = {
        "gamma": random.uniform(0.5, 8, 16).astype("f"),
        "beta": random.normal(size=16).astype("f"),
        "w": random.normal(size=(16, 32)).astype("f"),
        "b": random.normal(size=32).astype("f"),
        "v": random.normal(size=(32, 16)).astype("f"),
    }
    body = (
        "n = LayerNormalization(x, gamma, beta) m = MatMul(n, w) a = Add(m, b) t = Relu(a) y = MatMul(t, v)"
    )
    made = model_of(f"small (float[N,16] x) => (float[N,16] y) {{ {body} }}", **arrays)
    for node in made.graph:
        node.name = f"the_{node.outputs[0].name}"
    return made


def small_data(count: int = 24) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(count, 16)).astype(np.float32)}

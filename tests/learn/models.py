"""Small models and data to learn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.files import load
from onnxq.ir.linear import Linear, find_linear
from onnxq.learn.imitation import Ranges
from onnxq.learn.program import Program

EXPORTS = Path(__file__).parent.parent / "ir" / "exports"
TRANSFORMERS = ("post_18", "pre_18", "pre_23", "decoder_18", "decoder_23", "crossed_18")


def transformer(name: str) -> ir.Model:
    """A transformer of two layers with random weights, as torch's exporter wrote it."""
    return load(EXPORTS / f"{name}.onnx")


def feeds_for(model: ir.Model, seed: int, samples: int = 4, length: int = 7) -> dict[str, np.ndarray]:
    """Random samples; a mask hides the end of some."""
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        if value.name == "mask":
            used = random.integers(3, length + 1, samples)
            dtype = value.dtype.numpy() if value.dtype is not None else np.int64
            feeds[value.name] = (np.arange(length) < used[:, None]).astype(dtype)
        elif len(value.shape or ()) == 3:
            feeds[str(value.name)] = random.normal(size=(samples, length, 16)).astype(np.float32)
        else:
            feeds[str(value.name)] = random.integers(0, 30, (samples, length))
    return feeds


def seen_ranges(model: ir.Model, feeds: dict[str, np.ndarray], widen: float = 1.0) -> Ranges:
    """Least and greatest element of every linear's input."""
    linears = [linear for node in model.graph if isinstance(linear := find_linear(node), Linear)]
    names = sorted({str(linear.activation.name) for linear in linears})
    seen = Program(model, names)(feeds)
    return {name: (float(seen[name].min()) * widen, float(seen[name].max()) * widen) for name in names}

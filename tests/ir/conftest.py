"""Models from ONNX text, and their outputs on an unoptimised runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx.shape_inference
import onnx_ir as ir
import pytest

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]


@pytest.fixture
def build() -> Build:
    """``build(body, opset=17, inputs="float[N,T,4] x", outputs="float[N,T,4] y", **initializers)``."""
    return build_model


@pytest.fixture
def run() -> Run:
    """``run(model, x=array, ...)``: the model's outputs with every optimisation off."""
    return run_model


def build_model(
    body: str,
    *,
    opset: int = 17,
    inputs: str = "float[N,T,4] x",
    outputs: str = "float[N,T,4] y",
    overridable: str = "",
    shapes: bool = False,
    **initializers: np.ndarray,
) -> ir.Model:
    """A model from the nodes in `body`; an initializer named in `overridable` is a graph input as well.

    Inner values have no shape unless `shapes` asks for shape inference.
    """
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> '
        f"g ({inputs}{', ' + overridable if overridable else ''}) => ({outputs}) {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in initializers.items()
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto) if shapes else proto)


def run_model(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    """Outputs in order, computed by onnxruntime without graph optimisations."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    proto = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    found: Mapping[str, np.ndarray] = {given.name: feeds[given.name] for given in session.get_inputs()}
    return list(session.run(None, found))

"""Small models for the tests of the runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir


def model(text: str, opset: int = 21, **constants: Any) -> ir.Model:
    """A model from the text of its graph; `constants` become initializers."""
    header = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return ir.from_proto(proto)


def relu() -> ir.Model:
    return model("g (float[n, 4] x) => (float[n, 4] y) { h = Neg(x)\n y = Relu(h) }")

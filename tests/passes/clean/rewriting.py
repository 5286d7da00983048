"""Running one pass on a small model, and comparing what it computes before and after."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime

from onnxq.contract import AnyPass
from onnxq.ir.walk import nodes
from onnxq.pipeline import PassResult, apply_pass, broken_promise

onnxruntime.set_default_logger_severity(4)


def read(text: str, constants: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(text))
    for name, array in (constants or {}).items():
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.dtype, value.shape = value.const_value.dtype, ir.Shape(array.shape)
        old = next(v for v in model.graph.initializers.values() if v.name == name)
        old.replace_all_uses_with(value)
        model.graph.initializers[name] = value
    return model


def rewrite(a_pass: AnyPass, model: ir.Model) -> PassResult:
    """What the pipeline makes of a pass: it must settle, and leave the interface alone."""
    result = apply_pass(model, a_pass)
    assert result.settled
    assert not broken_promise(model, result.model, a_pass)
    return result


def ops_of(model: ir.Model) -> list[str]:
    return [node.op_type for node in nodes(model)]


def feeds_for(model: ir.Model, seed: int = 0, free: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        shape = [size if isinstance(size, int) else free for size in value.shape or ()]
        feeds[value.name] = _array(rng, shape, value.dtype.numpy())
    return feeds


def _array(rng: np.random.Generator, shape: list[int], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 3, shape).astype(dtype)
    return (rng.standard_normal(shape) * 3).astype(dtype)


def compute(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def assert_same_bits(before: ir.Model, after: ir.Model) -> None:
    for seed in range(3):
        feeds = feeds_for(before, seed)
        for old, new in zip(compute(before, feeds), compute(after, feeds), strict=True):
            assert old.dtype == new.dtype
            assert old.shape == new.shape
            assert old.tobytes() == new.tobytes()


def assert_close(before: ir.Model, after: ir.Model, units: float = 16) -> None:
    """Within `units` roundings of the largest number, and the same special values."""
    for seed in range(3):
        feeds = feeds_for(before, seed)
        for old, new in zip(compute(before, feeds), compute(after, feeds), strict=True):
            assert old.dtype == new.dtype
            scale = np.abs(old).max() * np.finfo(old.dtype).eps
            np.testing.assert_allclose(new, old, rtol=0, atol=units * scale)


def interface(model: ir.Model) -> list[tuple]:
    return [(v.name, v.type, str(v.shape)) for v in (*model.graph.inputs, *model.graph.outputs)]

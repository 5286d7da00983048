"""How much of a difference is rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxq.errors import BackendError
from onnxq.verify.compare import compare
from onnxq.verify.feeds import Feed
from onnxq.verify.hosts import Host

_UNITS = {
    ir.DataType.DOUBLE: 2.0**-52,
    ir.DataType.FLOAT: 2.0**-23,
    ir.DataType.FLOAT16: 2.0**-10,
    ir.DataType.BFLOAT16: 2.0**-7,
}


def rounding_unit(*models: ir.Model) -> float:
    """The coarsest machine epsilon at work in any of `models`; float32's if none is known."""
    dtypes = {dtype for model in models for dtype in _dtypes_of(model)}
    return max((_UNITS[dtype] for dtype in dtypes if dtype in _UNITS), default=_UNITS[ir.DataType.FLOAT])


def noise_of(model: ir.Model, feed: Feed, output: str, usual: Mapping[str, float], host: Host) -> float:
    """How far `output` of `model` moves without anybody rewriting it: the largest difference between runs.

    Run with the runtime's optimisations on, and on inputs moved by one rounding; neither is trusted beyond
    half of the digits, since the runtime's optimiser can be wrong, too.

    Args:
        model: The model.
        feed: The inputs.
        output: Name of the output.
        usual: The usual magnitude of inputs and outputs, by name; 1 for others. It is what is rounded.
        host: What opens the model.
    """
    plain = host.open(model, "disabled")
    reference = plain.run(feed.arrays)
    moved = scale = 0.0
    for candidate in (_optimised(model, feed, host), plain.run(_nudged(feed, usual))):
        found = compare(reference, candidate or {}).outputs.get(output)
        if found is not None and not found.mismatch:
            moved, scale = max(moved, found.max_abs), max(scale, found.scale)
    return min(moved, math.sqrt(rounding_unit(model)) * max(scale, usual.get(output, 1.0)))


def _optimised(model: ir.Model, feed: Feed, host: Host) -> dict[str, object] | None:
    try:
        return host.open(model, "all").run(feed.arrays)
    except BackendError:
        return None


def _nudged(feed: Feed, usual: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The feed with floats moved up and down by turns, by one rounding of the largest or usual magnitude."""
    nudged = dict(feed.arrays)
    for name, array in feed.arrays.items():
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            largest = float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
            step = float(np.finfo(array.dtype).eps) * max(largest, usual.get(name, 1.0))
            signs = np.where(np.arange(array.size).reshape(array.shape) % 2, -step, step)
            nudged[name] = (array + signs).astype(array.dtype)
    return nudged


def _dtypes_of(model: ir.Model) -> set[ir.DataType]:
    """Element types that values of `model` are known to have."""
    dtypes: set[ir.DataType] = set()
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for root in roots:
        for node in root.all_nodes():
            dtypes.update(
                value.dtype for value in (*node.inputs, *node.outputs) if value is not None and value.dtype
            )
            if node.op_type == "Cast" and (target := node.attributes.get_int("to")):
                dtypes.add(ir.DataType(target))
    dtypes.update(value.dtype for value in (*model.graph.inputs, *model.graph.outputs) if value.dtype)
    return dtypes

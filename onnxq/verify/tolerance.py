"""How much of a difference is rounding."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxq.errors import BackendError
from onnxq.verify.compare import compare, is_float
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


def noise_of(model: ir.Model, feed: Feed, output: str, host: Host) -> float:
    """How far `output` of `model` moves without anybody rewriting it: the largest difference between runs.

    It is run with the runtime's optimisations on, and on inputs moved by their last bit. Neither is trusted
    past half of the digits, since the runtime's optimiser can be wrong, too.
    """
    plain = host.open(model, "disabled")
    reference = plain.run(feed.arrays)
    moved = 0.0
    ceiling = 0.0
    for candidate in (_optimised(model, feed, host), plain.run(_nudged(feed))):
        found = compare(reference, candidate or {}).outputs.get(output)
        if found is None or found.mismatch:
            continue
        moved = max(moved, found.max_abs)
        ceiling = max(ceiling, math.sqrt(rounding_unit(model)) * found.scale)
    return min(moved, ceiling)


def _optimised(model: ir.Model, feed: Feed, host: Host) -> dict[str, object] | None:
    try:
        return host.open(model, "all").run(feed.arrays)
    except BackendError:
        return None


def _nudged(feed: Feed) -> dict[str, np.ndarray]:
    """The feed with every float moved to a neighbour, up and down by turns."""
    nudged = dict(feed.arrays)
    for name, array in feed.arrays.items():
        if array.dtype.kind == "f" and is_float(array.dtype):
            towards = np.where(np.arange(array.size).reshape(array.shape) % 2, np.inf, -np.inf)
            nudged[name] = np.nextafter(array, towards.astype(array.dtype))
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

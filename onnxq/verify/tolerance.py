"""How much of a difference is rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from onnxq.verify.compare import compare
from onnxq.verify.feeds import Feed
from onnxq.verify.reference import Reference

MOVING = 0.005
"""Part of an output's size that is believed to be rounding where the original itself moves as far."""
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


def noise_of(
    reference: Reference, feed: Feed, answer: Mapping[str, Any], output: str, usual: Mapping[str, float]
) -> float:
    """How far an output moves without anybody rewriting the model: the largest difference between runs.

    Run with the runtime's optimisations on, on inputs moved by one rounding, and with its smaller constants
    moved by one: token ids cannot be moved, and the scales of norms stand for the rounding of whatever passes
    through them. The optimiser can be wrong and is not trusted beyond half of the digits. The others are
    the original itself, and behind a norm what rounding leaves of zeros can be a thousand times as large:
    they are trusted up to `MOVING` of the output's size. What moves further counts as that far.

    Args:
        reference: The original.
        feed: The inputs.
        answer: What it gives for them.
        output: Name of the output.
        usual: The usual magnitude of inputs and outputs, by name; 1 for others. It is what is rounded.
    """
    unit, noise = rounding_unit(reference.model), 0.0
    itself = (reference.nudged(feed, usual), *reference.shaken(feed))
    half = math.sqrt(unit)
    trials = ((reference.optimised(feed), half), *((each, max(half, MOVING)) for each in itself))
    for candidate, trusted in trials:
        found = compare(answer, candidate or {}).outputs.get(output)
        if found is not None and not found.mismatch:
            noise = max(noise, min(found.max_abs, trusted * max(found.scale, usual.get(output, 1.0))))
    return noise


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

"""A quantized model whose activation ranges are inputs: trying other ranges costs a run and no new session.

The scale and zero point of every QuantizeLinear with a fixed range become inputs of a copy of the graph, and
so do the ends of the Clip in front of codes of fewer than eight bits. Whoever reads the codes reads the same
inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.ir.walk import constant_of, is_op, producer
from onnxq.passes.quantize.ranges import Interval, QuantParams, params_for
from onnxq.runtime import Feeds, SessionSettings, open_session

_READS_CODES = {"MatMulIntegerToFloat": (2, 4), "DequantizeLinear": (1, 2)}
"""Operators that read codes, and their inputs for the scale and the zero point."""


@dataclass(frozen=True)
class Quantizer:
    """One activation with a fixed range.

    Attributes:
        activation: Name of the value.
        params: The range that the model comes with.
        inputs: Names of the session's inputs for scale, zero point and, if there is a Clip, its two ends.
    """

    activation: str
    params: QuantParams
    inputs: tuple[str, ...] = field(repr=False)

    def feeds(self, interval: Interval) -> dict[str, np.ndarray]:
        """What to feed for another range."""
        params = params_for(
            *interval, self.params.bits, symmetric=self.params.symmetric, signed=self.params.signed
        )
        values = (params.scale, params.zero_point, np.float32(params.low), np.float32(params.high))
        return {name: np.asarray(value) for name, value in zip(self.inputs, values, strict=False)}


class AdjustableModel:
    """An open session of a quantized model, with any ranges.

    Args:
        quantized: What `QuantizeLinears` made; not changed.
        threads: Threads of the runtime.

    Raises:
        BackendError: The runtime refuses the model.
    """

    def __init__(self, quantized: ir.Model, *, threads: int = 1) -> None:
        copy = quantized.clone()
        found: dict[str, list[Quantizer]] = {}
        for node in list(copy.graph):
            made = _open_up(copy, node)
            if made is not None:
                found.setdefault(made.activation, []).append(made)
        self.quantizers: Mapping[str, tuple[Quantizer, ...]] = {k: tuple(v) for k, v in found.items()}
        self.outputs = tuple(str(value.name) for value in quantized.graph.outputs)
        self._session = open_session(copy, SessionSettings(threads=threads, level="all"))

    @property
    def ranges(self) -> dict[str, Interval]:
        """The ranges that the model comes with, by activation."""
        return {name: (first.params.low, first.params.high) for name, (first, *_) in self.quantizers.items()}

    def run(self, feeds: Feeds, ranges: Mapping[str, Interval]) -> dict[str, Any]:
        """The outputs with these ranges; activations that are not named keep theirs."""
        given = dict(feeds)
        for name, quantizers in self.quantizers.items():
            for quantizer in quantizers:
                own = (quantizer.params.low, quantizer.params.high)
                given |= quantizer.feeds(ranges.get(name, own))
        return self._session.run(given)


def _open_up(model: ir.Model, node: ir.Node) -> Quantizer | None:
    """Make inputs of what the QuantizeLinear `node` knows of its activation's range."""
    if not is_op(node, "QuantizeLinear") or node.inputs[0] is None:
        return None
    scale, zero = (constant_of(value) for value in (*node.inputs, None)[1:3])
    readers = [user for user, _ in node.outputs[0].uses()]
    known = all(user.op_type in _READS_CODES for user in readers)
    if scale is None or scale.size != 1 or zero is None or not readers or not known:
        return None
    clip = producer(node.inputs[0], "Clip")
    source = node.inputs[0] if clip is None else clip.inputs[0]
    if source is None or constant_of(source) is not None or _is_by_token(source):
        return None
    params = _params(float(scale.reshape(())), zero, clip)
    label = str(node.outputs[0].name)
    kinds = [ir.DataType.FLOAT, ir.DataType.INT8 if params.signed else ir.DataType.UINT8]
    opened = [_input(model, f"{label}_{what}", kind) for what, kind in zip(("s", "z"), kinds, strict=True)]
    for reader, places in ((node, (1, 2)), *((user, _READS_CODES[user.op_type]) for user in readers)):
        for place, value in zip(places, opened, strict=True):
            reader.replace_input_with(place, value)
    if clip is not None:
        opened += [_input(model, f"{label}_{what}", ir.DataType.FLOAT) for what in ("low", "high")]
        for place, value in enumerate(opened[2:], 1):
            clip.replace_input_with(place, value)
    return Quantizer(str(source.name), params, tuple(str(value.name) for value in opened))


def _is_by_token(source: ir.Value) -> bool:
    """Whether each token is divided by a scale of its own, so that there is no range of the tensor."""
    product = producer(source, "Mul")
    return product is not None and any(producer(each, "Reciprocal") is not None for each in product.inputs)


def _params(scale: float, zero: np.ndarray, clip: ir.Node | None) -> QuantParams:
    kind = np.int8 if zero.dtype == np.int8 else np.uint8
    bits = 8
    if clip is not None:
        low, high = (constant_of(value) for value in clip.inputs[1:3])
        if low is not None and high is not None:
            bits = round(math.log2(float(high.reshape(()) - low.reshape(())) / scale + 1.5))
    return QuantParams(np.float32(scale), kind(zero.item()), bits)


def _input(model: ir.Model, name: str, kind: ir.DataType) -> ir.Value:
    value = ir.Value(name=f"onnxq_range_{name}", shape=ir.Shape([]), type=ir.TensorType(kind))
    model.graph.inputs.append(value)
    return value

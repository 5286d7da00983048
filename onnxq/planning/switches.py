"""What rounding one activation alone does to a model's output: one session, and a switch for each activation.

x -> linear  =>  x or Dequantize(Quantize(x)), as a boolean input says -> linear

Weights stay as they are. Trying another activation costs a run, and neither a new model nor a new session.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.passes.quantize.ranges import Interval, QuantParams, params_for
from onnxq.runtime import Feeds, SessionSettings, open_session


class SwitchedModel:
    """An open session of a float model in which inputs of linears are rounded to 8 bits on demand.

    Args:
        model: The model; not changed.
        ranges: What the codes cover, by the name of an activation. Those that no float32 linear of the main
            graph reads are passed over.
        threads: Threads of the runtime.

    Raises:
        BackendError: The runtime refuses the model.
    """

    def __init__(self, model: ir.Model, ranges: Mapping[str, Interval], *, threads: int = 1) -> None:
        copy = model.clone()
        self._switches: dict[str, str] = {}
        for name, readers in _readers(copy).items():
            if name in ranges:
                self._switches[name] = _add_switch(copy, readers, params_for(*ranges[name]))
        self._session = open_session(copy, SessionSettings(threads=threads))

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the activations that have a switch, in the order of the graph."""
        return tuple(self._switches)

    def run(self, feeds: Feeds, rounded: Collection[str]) -> dict[str, Any]:
        """The outputs with the activations `rounded` in 8 bits and all others as they are."""
        switches = {switch: np.asarray(name in rounded) for name, switch in self._switches.items()}
        return self._session.run({**feeds, **switches})


def _readers(model: ir.Model) -> dict[str, list[Linear]]:
    """The linears of the main graph in float32, by the name of their input."""
    found: dict[str, list[Linear]] = {}
    for node in model.graph:
        linear = find_linear(node)
        if isinstance(linear, Linear) and linear.dtype == np.float32:
            found.setdefault(str(linear.activation.name), []).append(linear)
    return found


def _add_switch(model: ir.Model, readers: list[Linear], params: QuantParams) -> str:
    """Let `readers` read their input as it is or rounded; returns the name of the input that decides."""
    activation = readers[0].activation
    stem = f"onnxq_switch_{label_of(readers[0].node)}"
    switch = ir.Value(name=stem, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.BOOL))
    model.graph.inputs.append(switch)
    grid = [
        _constant(model, f"{stem}_{what}", np.asarray(number))
        for what, number in (("scale", params.scale), ("zero_point", params.zero_point))
    ]
    codes = ir.node("QuantizeLinear", [activation, *grid], name=f"{stem}_codes")
    rounded = ir.node("DequantizeLinear", [codes.outputs[0], *grid], name=f"{stem}_rounded")
    chosen = ir.node("Where", [switch, rounded.outputs[0], activation], name=f"{stem}_chosen")
    model.graph.insert_before(readers[0].node, [codes, rounded, chosen])
    for reader in readers:
        reader.node.replace_input_with(0, chosen.outputs[0])
    return stem


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value

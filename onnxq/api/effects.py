"""What single layers, rounded as decided, do to the output of the whole model: everything else in float.

`onnxq.api.evaluate.measure_effects` asks the same of activations alone, in one session, before anything is
decided; here weights are rounded as well and every layer takes the form that it got.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxq.api.evaluate import measure_fidelity
from onnxq.api.stage import Stage
from onnxq.contract import names_wanted
from onnxq.passes.quantize.linears import QuantizeLinears
from onnxq.pipeline import apply_pass
from onnxq.planning.layer_plan import LayerPlan

_SAMPLES = 8
"""Samples on which they are measured; each layer takes a session of its own."""


def read_together(layers: Sequence[LayerPlan], forms: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Names of the linears that read one activation, by its name, where there was a choice.

    Args:
        layers: What was decided.
        forms: Only linears in one of these; all if there are none.
    """
    groups: dict[str, list[str]] = {}
    for layer in layers:
        if layer.considered and (not forms or layer.form in forms):
            groups.setdefault(layer.activation, []).append(layer.name)
    return {name: tuple(labels) for name, labels in groups.items()}


def measure_decided(
    stage: Stage, model: ir.Model, layers: Sequence[LayerPlan], rounding: QuantizeLinears
) -> dict[str, float]:
    """What each integer linear as decided, with those that read the same activation, does to the output.

    Args:
        stage: The data.
        model: The model in front of rounding.
        layers: What was decided.
        rounding: Rounds all of them.

    Returns:
        SQNR of the output in dB with nothing else rounded, by name of the linear.
    """
    few = stage.few(_SAMPLES)
    groups = tuple(read_together(layers, ("int8 static", "int8 per-token")).values())
    statistics = stage.gather(model, names_wanted((rounding,), model))
    found = {}
    for number, labels in enumerate(groups):
        stage.progress("measuring what each layer does to the output", number, len(groups))
        candidate = apply_pass(model, replace(rounding, only=labels), statistics).model
        decibels = measure_fidelity(model, candidate, few, stage.threads).sqnr_db
        found.update(dict.fromkeys(labels, decibels))
    return found

"""Quantized linears imitated in floats: hooks where a linear reads its input, and where it reads its weight.

Only the linear reads the rounded numbers. Whoever else reads its input, such as a residual connection, goes
on reading floats, as in the models that onnxq writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.learn.fake_quant import Step, round_weight, weight_scale
from onnxq.learn.operators import Tensor, tensor_of
from onnxq.learn.program import Hook, Place

Ranges = Mapping[str, tuple[float, float]]
"""Least and greatest number that an activation's codes stand for, by the name of the activation."""


def linears_of(model: ir.Model, activations: Collection[str]) -> dict[str, Linear]:
    """The float linears of the main graph that read one of `activations`, by the labels of their products."""
    found = [linear for node in model.graph if isinstance(linear := find_linear(node), Linear)]
    return {
        label_of(linear.node): linear
        for linear in found
        if linear.activation.name in activations and linear.dtype.name == "float32"
    }


def steps_for(linears: Mapping[str, Linear], ranges: Ranges, bits: int) -> dict[str, Step]:
    """A quantization for each activation that the linears read, by name."""
    names = dict.fromkeys(str(linear.activation.name) for linear in linears.values())
    return {name: Step.holding(*ranges[name], bits) for name in names}


def reads_of(linears: Mapping[str, Linear], steps: Mapping[str, Hook]) -> dict[Place, Hook]:
    """Hooks that let each linear read its input through its step."""
    return {(label, 0): steps[str(linear.activation.name)] for label, linear in linears.items()}


def weights_of(
    linears: Mapping[str, Linear], given: Mapping[str, np.ndarray], bits: int
) -> dict[Place, Hook]:
    """Hooks that let linears read other weights.

    Args:
        linears: By label.
        given: Weights [K, N] to read, by label.
        bits: Round the weights of all others to the nearest of so many bits per column; 0 leaves them float.
    """
    hooks: dict[Place, Hook] = {}
    for label, linear in linears.items():
        if label in given:
            weight = tensor_of(np.asarray(given[label], np.float32))
        elif bits:
            weight = tensor_of(np.asarray(linear.weight, np.float32))
            weight = round_weight(weight, weight_scale(weight, bits), bits)
        else:
            continue
        hooks[label, 1] = constantly(stored(linear, weight))
    return hooks


def stored(linear: Linear, weight: Tensor) -> Tensor:
    """A weight [K, N] in the layout in which the linear's node reads it."""
    if linear.node.op_type != "Gemm":
        return weight
    attributes = linear.node.attributes
    alpha = attributes["alpha"].as_float() if "alpha" in attributes else 1.0
    weight = weight if alpha == 1.0 else weight / alpha
    turned = "transB" in attributes and attributes["transB"].as_int()
    return weight.T if turned else weight


def constantly(value: Tensor) -> Hook:
    """A hook that gives `value` whatever it is given."""
    return lambda _: value

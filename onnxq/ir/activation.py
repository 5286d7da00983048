"""Activations: Gelu, SiLU and ReLU, as operators or spelled out in any way.

A spelled-out activation is recognised by what it computes: the elementwise nodes above a Mul or Div are
evaluated on a range of numbers and compared with

    gelu-erf    x Φ(x) = x (1 + erf(x / √2)) / 2
    gelu-tanh   x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
    gelu-quick  x σ(1.702 x)
    silu        x σ(x)

The first two differ by up to 5e-4, so the function they call (Erf or Tanh) tells them apart, not the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.ir.elementwise import Cone, cones
from onnxq.ir.walk import input_of, is_op

_NUMBERS = np.linspace(-6.0, 6.0, 49)


@dataclass(frozen=True)
class Activation:
    """An activation function applied to every element of a value.

    Attributes:
        kind: ``"gelu-erf"``, ``"gelu-tanh"``, ``"gelu-quick"``, ``"silu"`` or ``"relu"``.
        input: The argument.
        output: The result.
        nodes: The nodes of the activation, the last one giving `output`.
        bias: What a fused operator adds to its argument first, or None.
    """

    kind: str
    input: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None = None


def find_gelu(node: ir.Node) -> Activation | None:
    """The Gelu, of any kind, whose last node is `node`."""
    found = find_activation(node)
    return found if found is not None and found.kind.startswith("gelu") else None


def find_silu(node: ir.Node) -> Activation | None:
    """The SiLU (Swish) whose last node is `node`."""
    found = find_activation(node)
    return found if found is not None and found.kind == "silu" else None


def find_activation(node: ir.Node) -> Activation | None:
    """The activation of any kind whose last node is `node`."""
    if is_op(node, "Mul", "Div"):
        return _spelled_out(node)
    source = input_of(node, 0)
    kind = _operator_kind(node)
    if kind is None or source is None:
        return None
    bias = input_of(node, 1) if node.op_type in ("BiasGelu", "FastGelu") else None
    return Activation(kind, source, node.outputs[0], (node,), bias)


def _operator_kind(node: ir.Node) -> str | None:
    """What an operator that is an activation computes."""
    if node.domain == "com.microsoft":
        kind = {"Gelu": "gelu-erf", "BiasGelu": "gelu-erf", "FastGelu": "gelu-tanh"}.get(node.op_type)
        return _sigmoid_kind(_alpha(node, 1.702)) if node.op_type == "QuickGelu" else kind
    if is_op(node, "Gelu"):
        approximate = node.attributes.get("approximate")
        if approximate is not None and approximate.is_ref():
            return None
        return "gelu-tanh" if approximate is not None and approximate.as_string() == "tanh" else "gelu-erf"
    if is_op(node, "Swish"):
        return _sigmoid_kind(_alpha(node, 1.0))
    return "relu" if is_op(node, "Relu") else None


def _alpha(node: ir.Node, default: float) -> float:
    found = node.attributes.get("alpha")
    if found is None:
        return default
    return math.nan if found.is_ref() else found.as_float()


def _sigmoid_kind(alpha: float) -> str | None:
    """The name of ``x σ(alpha x)``."""
    known = {"silu": 1.0, "gelu-quick": 1.702}
    return next((kind for kind, number in known.items() if math.isclose(alpha, number, rel_tol=1e-4)), None)


def _spelled_out(node: ir.Node) -> Activation | None:
    for cone in cones(node.outputs[0], _KINDS):
        kind = _kind_of(cone)
        if kind is not None:
            return Activation(kind, cone.argument, cone.output, tuple(reversed(cone.nodes)))
    return None


def _kind_of(cone: Cone) -> str | None:
    called = {node.op_type for node in cone.nodes}
    for function, kinds in _KINDS.items():
        if function not in called:
            continue
        with np.errstate(all="ignore"):
            computed = cone.evaluate(_NUMBERS)
        for kind, formula in kinds.items():
            if np.allclose(computed, formula(_NUMBERS), rtol=0, atol=2 * cone.tolerance, equal_nan=False):
                return kind
    return None


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _gelu_erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.array([math.erf(number / math.sqrt(2)) for number in x])))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


_SIGMOIDS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": lambda x: x * _sigmoid(x),
    "gelu-quick": lambda x: x * _sigmoid(1.702 * x),
    "gelu-tanh": _gelu_tanh,  # tanh(z) = 2 σ(2z) - 1
}

_KINDS: Mapping[str, Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "Erf": {"gelu-erf": _gelu_erf},
    "Tanh": {"gelu-tanh": _gelu_tanh},
    "Sigmoid": _SIGMOIDS,
    "Exp": _SIGMOIDS,
}

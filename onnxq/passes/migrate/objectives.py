"""What a scale and a shift cost: the output error of whoever reads a tensor, with weights and tensor rounded.

Each term computes its exact output once, and for every trial the output of the rounded tensor times the
rounded weights. Errors are relative to the energy of the exact output, so that terms can be added:

    linear     x W
    gated      act(x W_gate + b_gate) * (x W_up + b_up)
    attention  softmax(q k^T * scale + mask) v, with q, k, v of x (see `attention_objective`)

Source: Outlier Suppression+ (arXiv 2304.09145, sec. 3.2 and appendix), the objective of its threshold search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxq.ir.activation import Activation
from onnxq.ir.linear import Linear
from onnxq.ir.part import Part
from onnxq.passes.migrate.rounding_trial import TrialBits, round_activation, round_weight


@dataclass(frozen=True, eq=False)
class Trial:
    """One way to move scale and shift, and how finely everything is rounded.

    Attributes:
        scale: Divisor of each channel, float32 [C].
        shift: What is taken off each channel first, float32 [C].
        low: Least element of the moved tensor over all live channels.
        high: Greatest element.
        bits: Bits of weights and of the tensor.
    """

    scale: np.ndarray
    shift: np.ndarray
    low: float
    high: float
    bits: TrialBits

    def tensor(self, rows: np.ndarray) -> np.ndarray:
        """`rows` [..., C], moved and rounded."""
        widened = 1 + self.bits.margin
        moved = (rows - self.shift) / self.scale
        return round_activation(moved, self.low * widened, self.high * widened, self.bits.activation)

    def weight(self, weight: np.ndarray) -> np.ndarray:
        """A reader's weight [C, N], compensated and rounded."""
        return round_weight(weight * self.scale[:, None], self.bits.weight)

    def product(self, rounded: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """What a reader makes of the rounded tensor, its bias left out."""
        product: np.ndarray = rounded @ self.weight(weight)
        return product + self.shift @ weight if self.shift.any() else product


class Term(Protocol):
    """A part of the network behind the tensor, and its error."""

    def error(self, trial: Trial) -> float:
        """Squared error of the output, relative to the energy of the exact one."""


class LinearTerm:
    """The outputs of linears that read the same tensor."""

    def __init__(self, rows: np.ndarray, linears: Sequence[Linear]) -> None:
        self.rows = rows
        self.weights = [linear.weight.astype(np.float32) for linear in linears]
        self.exact = [rows @ weight for weight in self.weights]

    def error(self, trial: Trial) -> float:
        """Sum over the linears."""
        rounded = trial.tensor(self.rows)
        return sum(
            relative_error(trial.product(rounded, weight), exact)
            for weight, exact in zip(self.weights, self.exact, strict=True)
        )


class GatedTerm:
    """The product of a gated feed-forward, whose two paths, linears or parts of one, read the same tensor."""

    def __init__(self, rows: np.ndarray, gate: Part, up: Part, activation: Activation) -> None:
        self.rows = rows
        self.gate, self.up = gate.weight.astype(np.float32), up.weight.astype(np.float32)
        self.gate_bias, self.up_bias = _bias(gate), _bias(up)
        self.curve = _CURVES[activation.kind]
        self.exact = self._output(rows @ self.gate, rows @ self.up)

    def error(self, trial: Trial) -> float:
        """Of the product of both paths."""
        rounded = trial.tensor(self.rows)
        return relative_error(
            self._output(trial.product(rounded, self.gate), trial.product(rounded, self.up)), self.exact
        )

    def _output(self, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
        output: np.ndarray = self.curve(gate + self.gate_bias) * (up + self.up_bias)
        return output


def relative_error(given: np.ndarray, exact: np.ndarray) -> float:
    """Squared distance over squared length; infinite where something is not finite."""
    difference = (given - exact).reshape(-1)
    flat = exact.reshape(-1)
    error = float(np.dot(difference, difference)) / max(float(np.dot(flat, flat)), 1e-30)
    return error if np.isfinite(error) else float("inf")


def _bias(part: Part) -> np.ndarray | np.float32:
    return np.float32(0) if part.bias is None else part.bias.astype(np.float32)


def _silu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        result: np.ndarray = x / (1 + np.exp(-x))
    return result


def _gelu(x: np.ndarray) -> np.ndarray:
    """By its tanh form, for the exact one too: only differences count here."""
    result: np.ndarray = 0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x**3)))
    return result


def _quick_gelu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = _silu(np.float32(1.702) * x) / np.float32(1.702)
    return result


def _relu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, np.float32(0))
    return result


_CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": _relu,
    "silu": _silu,
    "gelu-quick": _quick_gelu,
    "gelu-erf": _gelu,
    "gelu-tanh": _gelu,
}

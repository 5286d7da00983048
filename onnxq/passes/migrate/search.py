"""Which threshold: tried on what the readers of a tensor really make of it when everything is rounded.

    s_j = max(1, c_j / t),  c_j the reach of channel j

The threshold t falls from the greatest reach, where nothing is scaled, in even steps of its logarithm, and
then in finer ones around the best. Of equals the larger threshold wins, which moves less.
Source: Outlier Suppression+ (arXiv 2304.09145, sec. 3.2); the steps are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context
from onnxq.ir.activation import Activation, find_activation
from onnxq.ir.linear import Linear
from onnxq.ir.part import Part, part_giving, parts_of
from onnxq.ir.walk import is_op
from onnxq.passes.migrate.attention_objective import AttentionTerm, find_parts
from onnxq.passes.migrate.objectives import GatedTerm, LinearTerm, Term, Trial
from onnxq.passes.migrate.rounding_trial import TrialBits

Search = Literal["closed", "linear", "output", "token"]
"""How a scale is found: in closed form, on the output of the linears, on that of the block they are in; or in
closed form for products with a range for each token (`token_scale`)."""

COARSE = 16
FINE = 4
ROWS = 384
"""Tokens that linears are judged on."""
BETTER = 1e-3
"""Part by which an error has to be smaller to count as smaller."""
MOST = 1e4
"""Greatest scale."""


@dataclass(frozen=True)
class Range:
    """Extremes of the channels of a tensor, and which of them count.

    Attributes:
        low: Least value of each channel [C].
        high: Greatest value of each channel [C].
        live: Channels that some reader's weight does not multiply by zero, bool [C].
    """

    low: np.ndarray
    high: np.ndarray
    live: np.ndarray

    def moved(self, scale: np.ndarray, shift: np.ndarray, bits: TrialBits) -> Trial:
        """The trial of a scale and a shift, [C] each."""
        low, high = ((end - shift) / scale for end in (self.low, self.high))
        return Trial(
            scale.astype(np.float32),
            shift.astype(np.float32),
            float(low[self.live].min(initial=0.0)),
            float(high[self.live].max(initial=0.0)),
            bits,
        )


def rows_of(label: str, context: Context) -> np.ndarray:
    """Tokens of the tensor `label` that calibration kept, [R, C] and at most `ROWS`.

    Raises:
        LookupError: It kept none.
    """
    seen = context.statistics.get(label)
    if seen is None or seen.rows is None or not len(seen.rows.values):
        raise LookupError("calibration kept no rows of it")
    return seen.rows.values[:ROWS]


def terms_behind(
    linears: Sequence[Linear], label: str, context: Context, search: Search
) -> tuple[list[Term], str]:
    """What to judge the tensor `label` by, and a remark where that is less than was asked for.

    Attentions behind it are judged one by one, and their errors added up. One that cannot be evaluated, or of
    which calibration kept no examples, is judged by its linears.

    Args:
        linears: All linears that read it.
        label: Its name in the statistics.
        context: The model and its statistics.
        search: "output" to look through attention and gates.

    Raises:
        LookupError: Calibration kept no rows of it.
    """
    rows = rows_of(label, context)
    terms: list[Term] = []
    left, remark = list(linears), ""
    if search == "output":
        for part in find_parts(linears):
            try:
                terms.append(AttentionTerm(part, label, context))
                left = [linear for linear in left if linear not in part.linears]
            except LookupError as trouble:
                remark = f"judged by its linears, not by the attention behind them: {trouble.args[0]}"
        judged: Counter[ir.Node] = Counter()
        for gate, up, activation in _gated_pairs(left):
            terms.append(GatedTerm(rows, gate, up, activation))
            judged += Counter({gate.linear.node: gate.width}) + Counter({up.linear.node: up.width})
        left = [linear for linear in left if judged[linear.node] < linear.columns]
    if left:
        terms.append(LinearTerm(rows, left))
    return terms, remark


def search_scale(
    reach: np.ndarray, live: np.ndarray, error_of: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, float]:
    """The best scale, and its error.

    Args:
        reach: c_j [C], after the shift.
        live: Channels that count, bool [C].
        error_of: The error of a scale [C].
    """
    ones = np.ones(reach.shape)
    plain = error_of(ones)
    counted = reach[live & (reach > 0)]
    if not counted.size:
        return ones, plain
    greatest = float(counted.max())
    lowest = max(0.25 * float(np.median(counted)), 1e-4 * greatest)
    thresholds = list(np.geomspace(greatest, lowest, COARSE))
    tried = {greatest: (plain, ones)}

    def attempt(threshold: float) -> None:
        scale = np.where(live, np.clip(reach / threshold, 1.0, MOST), 1.0)
        tried[threshold] = (error_of(scale), scale)

    for threshold in thresholds[1:]:
        attempt(threshold)
    best = thresholds.index(_best(tried))
    above, below = thresholds[max(best - 1, 0)], thresholds[min(best + 1, COARSE - 1)]
    for threshold in np.geomspace(above, below, FINE + 2)[1:-1]:
        attempt(float(threshold))
    error, scale = tried[_best(tried)]
    return scale, error


def _best(tried: dict[float, tuple[float, np.ndarray]]) -> float:
    chosen = max(tried)
    for threshold in sorted(tried, reverse=True):
        if tried[threshold][0] < tried[chosen][0] * (1 - BETTER):
            chosen = threshold
    return chosen


def _gated_pairs(linears: Sequence[Linear]) -> Iterator[tuple[Part, Part, Activation]]:
    """Gates, what they are multiplied with, and the activations between: linears, or parts of one."""
    own = {linear.node for linear in linears}
    for up in (part for linear in linears for part in parts_of(linear)):
        for node, index in up.value.uses():
            other = node.inputs[1 - index] if is_op(node, "Mul") else None
            last = other.producer() if other is not None else None
            activation = find_activation(last) if last is not None else None
            if activation is None or activation.bias is not None:
                continue
            gate = part_giving(activation.input)
            if gate is not None and gate.linear.node in own and gate.value is not up.value:
                yield gate, up, activation
                break

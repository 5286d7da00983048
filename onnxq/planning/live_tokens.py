"""How far the tokens of an activation reach, in the channels that matter to the linears that read it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.ir.channels import live_channels
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.known import bounds_of
from onnxq.passes.quantize.ranges import Interval
from onnxq.statistics import Statistics, TensorStatistics, TokenExtremes


@dataclass(frozen=True, eq=False)
class LiveTokens:
    """Extremes of the channels of one activation that matter to its linears.

    Attributes:
        tokens: Token by token.
        whole: Of all tokens.
    """

    tokens: TokenExtremes
    whole: Interval

    def clipped(self, alpha: float, margin: float) -> Interval:
        """The range without the tokens beyond the quantile `alpha`, widened by the part `margin`."""
        low, high = self.whole if alpha >= 1 else self.tokens.quantiles(alpha)
        return low * (1 + margin), high * (1 + margin)


def live_tokens(model: ir.Model, statistics: Statistics, names: Container[str]) -> dict[str, LiveTokens]:
    """Those of `names` that can be clipped; an activation of a bounded function keeps its range.

    Args:
        model: The float model.
        statistics: With token extremes of its activations, and with rows of those of which some channels are
            multiplied by zero.
        names: Activations.
    """
    readers: dict[str, list[Linear]] = {}
    for node in nodes(model):
        linear = find_linear(node)
        if isinstance(linear, Linear) and str(linear.activation.name) in names:
            readers.setdefault(str(linear.activation.name), []).append(linear)
    found = {}
    for name, linears in readers.items():
        seen = statistics.get(name)
        if seen is None or bounds_of(linears[0].activation) is not None:
            continue
        tokens = _tokens_of(seen, live_channels(linear.weight for linear in linears))
        if tokens is not None:
            found[name] = tokens
    return found


def _tokens_of(seen: TensorStatistics, live: np.ndarray) -> LiveTokens | None:
    if live.all() and seen.token is not None:
        return LiveTokens(seen.token, (seen.low, seen.high))
    if seen.rows is None or seen.channel is None or not live.any():
        return None
    low, high = seen.channel.low[live], seen.channel.high[live]
    return LiveTokens(TokenExtremes.of(seen.rows.values[:, live]), (float(low.min()), float(high.max())))

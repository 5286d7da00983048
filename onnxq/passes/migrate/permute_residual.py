"""stream[..., 0..C-1]  =>  stream[..., π(0)..π(C-1)], every constant that meets the channels in order π

Fires on a residual stream whose channels calibration found in another order than by range. Embeddings and
position tables, norms, rows of every linear that reads the stream, columns and biases of every linear that
writes it, layer scales, the convolution that makes patches and the one that reads them back: all get the one
order. Nothing is added but a Gather where the stream enters or leaves the graph.

The order: the range of each channel over the tensor's median, averaged over the tensors that linears read and
norms give; ascending, so that outliers come last and contiguous groups of channels are alike. Sums over the
channels are taken in another order, so results differ in the last bits.

Source: the range-based permutation of per-embedding-group quantization (Bondarenko, Nagel and Blankevoort,
EMNLP 2021, arXiv 2109.12948, sec. 4), one for the whole stream instead of one for each tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.norm import Norm, find_norm, norm_giving
from onnxq.ir.permutation import PERMUTED, permute_stream
from onnxq.ir.stream import ChannelStream, find_stream
from onnxq.ir.walk import nodes
from onnxq.passes.group_evidence import permutation_examples
from onnxq.statistics import ChannelExtremes, Statistic

Scope = Literal["residual", "hidden", "all"]
Found = tuple[ChannelStream, tuple[int, ...]]


@dataclass(frozen=True)
class PermuteResidual(Pass):
    """Channels in any order => channels by range, outliers last, throughout the stream.

    Attributes:
        scope: Which streams: "residual" those that a norm belongs to, "hidden" those between two linears that
            no norm belongs to (a feed-forward's), or "all".
        order: The old place of each new channel, instead of the order by range. Streams of another number of
            channels are left alone.
    """

    scope: Scope = "residual"
    order: tuple[int, ...] = ()

    name: ClassVar[str] = "permute-residual"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}))

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The outputs of all norms and the inputs of all linears."""
        found: dict[ir.Value, None] = {}
        for node in nodes(model):
            tensor = _tensor_at(node)
            if tensor is not None:
                found[tensor.value] = None
        return list(found)

    def match(self, node: ir.Node, context: Context) -> Found | Reject | None:
        """The stream whose first norm, or first linear, is `node`, and the order of its channels."""
        norm = find_norm(node)
        if isinstance(norm, Reject):
            return norm
        tensor = _tensor_at(node)
        if tensor is None or self.scope == ("hidden" if tensor.is_norm else "residual"):
            return None
        label = str(tensor.value.name)
        if PERMUTED in label:
            return None
        if self.order and sorted(self.order) != list(range(tensor.channels)):
            return Reject(f"the order given is none of its {tensor.channels} channels", label)
        if not self.order and _extremes_of(tensor.value, context) is None:
            return Reject("calibration has no statistics of it", label)
        others = _Others(node, tensor.is_norm, context, needs_statistics=not self.order)
        stream = find_stream(tensor.value, tensor.channels, others)
        return self._ordered(stream, context, label) if isinstance(stream, ChannelStream) else stream

    def rewrite(self, found: Found, edit: Edit) -> None:
        """Put the channels of the whole stream in their new order."""
        stream, order = found
        permute_stream(stream, edit, order)

    def _ordered(self, stream: ChannelStream, context: Context, label: str) -> Found | Reject:
        if self.scope != "residual" and not _has_norm(stream) and (stream.entries or stream.exits):
            return Reject("it enters or leaves the graph", label)
        order = self.order or order_by_range(_extremes(stream, context))
        if list(order) == sorted(order):
            return Reject("its channels are in order already", label)
        return stream, order

    @classmethod
    def examples(cls) -> Examples:
        """Post-LN, pre-LN and RMS norms, spelled out or not; channels that are divided, or in order."""
        return permutation_examples()


def order_by_range(tensors: Sequence[ChannelExtremes]) -> tuple[int, ...]:
    """Channels by their range, least first.

    Args:
        tensors: Extremes of the channels [C] of each tensor of a stream, at least one.

    Returns:
        The place of each channel of the new order in the old one; equal channels stay in their order.
    """
    ranks = np.zeros(tensors[0].low.shape)
    for extremes in tensors:
        spread = np.maximum(extremes.high - extremes.low, 0.0)
        middle = float(np.median(spread)) or float(spread.max(initial=0.0)) or 1.0
        ranks += spread / middle
    return tuple(int(place) for place in np.argsort(ranks, kind="stable"))


class _Others:
    """Tells whether a tensor belongs to a norm or linear before the one in hand: the first one speaks."""

    def __init__(self, node: ir.Node, is_norm: bool, context: Context, *, needs_statistics: bool) -> None:
        self._own, self._is_norm, self._context = node, is_norm, context
        self._needs_statistics = needs_statistics
        self._places = {each: place for place, each in enumerate(nodes(context.model))}

    def __call__(self, value: ir.Value) -> bool:
        norm = norm_giving(value)
        if norm is not None:
            return not self._is_norm or self._speaks(norm.nodes[-1], value)
        if self._is_norm:
            return False
        readers = [user for user, index in value.uses() if index == 0 and self._speaks(user, value)]
        return any(isinstance(find_linear(reader), Linear) for reader in readers)

    def _speaks(self, node: ir.Node, value: ir.Value) -> bool:
        is_before = self._places[node] < self._places[self._own]
        return is_before and (not self._needs_statistics or _extremes_of(value, self._context) is not None)


@dataclass(frozen=True)
class _Tensor:
    """What a norm gives or a linear reads, channels last."""

    value: ir.Value
    channels: int
    is_norm: bool


def _tensor_at(node: ir.Node) -> _Tensor | None:
    norm = find_norm(node)
    if isinstance(norm, Norm):
        return _Tensor(norm.output, norm.channels, True)
    linear = find_linear(node)
    return _Tensor(linear.activation, linear.channels, False) if isinstance(linear, Linear) else None


def _has_norm(stream: ChannelStream) -> bool:
    return any(norm_giving(value) is not None for value in stream.axes)


def _extremes(stream: ChannelStream, context: Context) -> list[ChannelExtremes]:
    """Extremes of the tensors that norms give and linears read, one for each tensor."""
    wanted: dict[ir.Value, None] = {}
    for value, axis in stream.axes.items():
        readers = [find_linear(user) for user, index in value.uses() if index == 0]
        read = any(isinstance(reader, Linear) for reader in readers)
        if axis == -1 and (read or norm_giving(value) is not None):
            wanted[value] = None
    seen = [_extremes_of(value, context) for value in wanted]
    return [each for each in seen if each is not None and each.low.size == stream.channels]


def _extremes_of(value: ir.Value, context: Context) -> ChannelExtremes | None:
    seen = context.statistics.get(str(value.name))
    if seen is None or seen.channel is None or not np.isfinite(seen.channel.high - seen.channel.low).all():
        return None
    return seen.channel

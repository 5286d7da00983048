"""x -> linear(W, b)  =>  Σ_g x[..., group g] -> linear(W[rows of g], b in the first)

Fires on a tensor that linears read: one Split for all of them, one product for each group, a Sum behind. Each
group then gets its own range when products become integers, so that few towering channels spend the levels of
their own group only. Groups narrower than an integer product is worth stay float.

Groups are contiguous: of equal size, of sizes that are given, or, where the expected error falls enough, all
channels but the last few and these by themselves. `permute-residual` brings outliers to the end for nothing;
with `gather`, one Gather for each tensor does.

Why products are split at all: a scale per group of an activation, in one pair of QuantizeLinear and
DequantizeLinear, is what ONNX Runtime loads without a word and then refuses at the first run, for its integer
products take one scale. No pass writes that form.

Source: per-embedding-group quantization (Bondarenko, Nagel and Blankevoort, EMNLP 2021, arXiv 2109.12948,
sec. 4), realised by sums; groups of unequal size are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.precision import fits, round_once
from onnxq.ir.walk import nodes, producer
from onnxq.passes.group_evidence import split_examples
from onnxq.passes.migrate.migration import is_widely_shared
from onnxq.passes.migrate.rounding_trial import TrialBits
from onnxq.passes.migrate.scales import expected_error
from onnxq.statistics import ChannelExtremes, Statistic

SIZES_AS_INPUT = 13  # the opset in which Split took its sizes as an input
TAILS = (1, 2, 4, 8, 16, 32)
"""How many channels may go by themselves."""
_NEARLY_BEST = 1.1


@dataclass(frozen=True, eq=False)
class Grouping:
    """A tensor, the linears that read it, and how its channels are divided.

    Attributes:
        linears: The linears, in the order of their graph.
        order: The old place of each channel before the division; None where they stay.
        sizes: Channels of each group.
        opset: Version of the operators where the linears live.
    """

    linears: tuple[Linear, ...]
    order: tuple[int, ...] | None
    sizes: tuple[int, ...]
    opset: int


@dataclass(frozen=True)
class SplitGroups(Pass):
    """One product => a sum of products over groups of channels.

    Attributes:
        groups: Number of groups of equal size; 0 for unequal ones.
        sizes: Channels of each group, first to last; empty to choose by the expected error.
        gain: How many times smaller the expected squared error must become, where the sizes are chosen.
        gather: Whether a Gather may order a tensor's channels by range before they are divided.
        least: Fewest channels of a group that will be an integer product, and fewest columns of a linear.
        skip: Names of linears that stay whole; one without a name goes by that of its product.
        weight_bits: Bits that weights will be rounded to, 2 to 16, as the error has it.
        activation_bits: Bits that the tensor will be rounded to.
    """

    groups: int = 0
    sizes: tuple[int, ...] = ()
    gain: float = 1.5
    gather: bool = False
    least: int = 16
    skip: tuple[str, ...] = ()
    weight_bits: int = 8
    activation_bits: int = 8

    name: ClassVar[str] = "split-groups"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}))

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears."""
        found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
        return list(dict.fromkeys(linear.activation for linear in found))

    def match(self, node: ir.Node, context: Context) -> Grouping | Reject | None:
        """The tensor that the linear `node` is the first to read, and its division into groups."""
        linear = find_linear(node)
        if linear is None or isinstance(linear, Reject):
            return linear
        if _is_group(linear.activation):
            return None
        if reason := self._obstacle(linear):
            return Reject(reason, label_of(node))
        linears = self._readers(linear)
        if linears[0].node is not node:
            return None
        seen = context.statistics.get(str(linear.activation.name))
        extremes = seen.channel if seen is not None else None
        if extremes is None and (self.gather or not (self.groups or self.sizes)):
            return Reject("calibration has no statistics of its input", label_of(node))
        order = _by_range(extremes) if self.gather and extremes is not None else None
        sizes = self._sizes(linears, extremes, order)
        return (
            Reject(sizes, label_of(node))
            if isinstance(sizes, str)
            else Grouping(linears, order, sizes, context.opset)
        )

    def rewrite(self, found: Grouping, edit: Edit) -> None:
        """Divide the tensor once, every product that reads it, and add up."""
        parts = _divide(found, edit)
        for linear in found.linears:
            _split_product(linear, found, parts, edit)

    def _obstacle(self, linear: Linear) -> str:
        """Why this linear stays whole; "" if nothing speaks against groups."""
        if label_of(linear.node) in self.skip:
            return "told to stay whole"
        if linear.columns < self.least or linear.channels < 2 * self.least:
            return f"{linear.channels} x {linear.columns} is too small to pay"
        if is_widely_shared(linear):
            return "its weight is shared widely"
        if not fits(linear.weight, linear.dtype):
            return f"its weight overflows {linear.dtype.name}"
        return ""

    def _readers(self, linear: Linear) -> tuple[Linear, ...]:
        """The linears that read the same tensor in the same graph and may be divided, in order."""
        graph = linear.node.graph
        order = {node: place for place, node in enumerate(graph)} if graph is not None else {}
        users = sorted(
            {user: None for user, index in linear.activation.uses() if index == 0 and user.graph is graph},
            key=lambda user: order[user],
        )
        found = [reader for user in users if isinstance(reader := find_linear(user), Linear)]
        return tuple(reader for reader in found if not self._obstacle(reader))

    def _sizes(
        self, linears: Sequence[Linear], extremes: ChannelExtremes | None, order: tuple[int, ...] | None
    ) -> tuple[int, ...] | str:
        """Channels of each group, or why there are none."""
        channels = linears[0].channels
        if self.sizes:
            fitting = sum(self.sizes) == channels and min(self.sizes) > 0 and len(self.sizes) > 1
            return self.sizes if fitting else f"the sizes given do not divide its {channels} channels"
        if self.groups:
            if self.groups < 2 or channels % self.groups:
                return f"its {channels} channels do not fall into {self.groups} equal groups"
            size = channels // self.groups
            narrow = f"groups of {size} channels are too narrow for an integer product"
            return narrow if size < self.least else (size,) * self.groups
        assert extremes is not None
        return self._tail(linears, extremes, list(order or range(channels)))

    def _tail(
        self, linears: Sequence[Linear], extremes: ChannelExtremes, order: list[int]
    ) -> tuple[int, ...] | str:
        """The fewest last channels by themselves that lower the expected error nearly as far as it goes."""
        channels = len(order)
        low, high = extremes.low[order], extremes.high[order]
        rows = [linear.weight[order].astype(np.float64) for linear in linears]
        before = self._error(low, high, rows, (channels,))
        tails = [tail for tail in TAILS if channels - tail >= self.least]
        errors = {tail: self._error(low, high, rows, (channels - tail, tail)) for tail in tails}
        best = min(errors.values())
        if before < self.gain * best or not before > 0:
            return f"groups would lower the expected error {before / max(best, 1e-300):.2f} times only"
        tail = next(tail for tail in tails if errors[tail] <= max(best * _NEARLY_BEST, 0.0))
        return (channels - tail, tail)

    def _error(
        self, low: np.ndarray, high: np.ndarray, rows: Sequence[np.ndarray], sizes: Sequence[int]
    ) -> float:
        """Expected squared error of all products, each group with its own range; narrow groups have none."""
        total, bits = 0.0, TrialBits(self.weight_bits, self.activation_bits, margin=0.0)
        for start, stop in pairwise((0, *accumulate(sizes))):
            if stop - start >= self.least:
                part = [weight[start:stop] for weight in rows]
                powers = np.asarray(sum(np.einsum("kn,kn->k", weight, weight) for weight in part))
                ones = np.ones(stop - start)
                total += expected_error(low[start:stop], high[start:stop], ones, part, powers, bits)
        return total

    @classmethod
    def examples(cls) -> Examples:
        """Outliers at the end, one and several readers, a Gemm; even, unseen or small tensors."""
        return split_examples()


def _is_group(value: ir.Value) -> bool:
    """Whether `value` is a part of another tensor's channels."""
    split = producer(value, "Split")
    return split is not None and split.attributes.get_int("axis", 0) == -1


def _by_range(extremes: ChannelExtremes) -> tuple[int, ...] | None:
    """Channels by their range, least first; None if they are in that order."""
    order = np.argsort(extremes.high - extremes.low, kind="stable")
    in_order = bool((order == np.arange(order.size)).all())
    return None if in_order else tuple(int(place) for place in order)


def _divide(found: Grouping, edit: Edit) -> tuple[ir.Value, ...]:
    """The groups of the tensor, in front of the first linear that reads it."""
    first = found.linears[0]
    value, name = first.activation, str(first.activation.name)
    if found.order is not None:
        indices = edit.constant(np.asarray(found.order, np.int64), f"{name}_order", near=first.node)
        (value,) = edit.insert(
            "Gather", [value, indices], {"axis": -1}, before=first.node, names=[f"{name}_ordered"], like=value
        )
    names = [f"{name}_group{number}" for number in range(1, len(found.sizes) + 1)]
    inputs: list[ir.Value | None] = [value]
    attributes: dict[str, object] = {"axis": -1}
    if found.opset < SIZES_AS_INPUT:
        attributes = {"axis": -1, "split": list(found.sizes)}
    else:
        sizes = np.asarray(found.sizes, np.int64)
        inputs = [value, edit.constant(sizes, f"{name}_sizes", near=first.node)]
    parts = edit.insert("Split", inputs, attributes, before=first.node, names=names)
    for part, size in zip(parts, found.sizes, strict=True):
        part.type = value.type
        if value.shape is not None:
            part.shape = ir.Shape([*value.shape[:-1], size])
    return parts


def _split_product(linear: Linear, found: Grouping, parts: Sequence[ir.Value], edit: Edit) -> None:
    """The sum of the products of all groups in the place of `linear`."""
    node, label = linear.node, label_of(linear.node)
    weight = round_once(linear.weight, linear.dtype)
    weight = weight if found.order is None else weight[list(found.order)]
    products = []
    bounds = pairwise((0, *accumulate(found.sizes)))
    for number, (part, (start, stop)) in enumerate(zip(parts, bounds, strict=True), 1):
        rows = edit.constant(weight[start:stop].copy(), f"{label}_group{number}_weight", near=node)
        (product,) = edit.insert("MatMul", [part, rows], before=node, names=[f"{label}_group{number}"])
        if number == 1 and linear.bias is not None:
            bias = edit.constant(round_once(linear.bias, linear.dtype), f"{label}_bias", near=node)
            (product,) = edit.insert("Add", [product, bias], before=node, names=[f"{label}_biased"])
        products.append(product)
    (total,) = edit.insert("Sum", products, before=node, names=[f"{label}_sum"], like=linear.output)
    edit.take_over(linear.output, total)

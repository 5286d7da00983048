"""x @ W + b  =>  (x @ W0 + b) + x[..., S] @ W[S],  W0 = W with rows of zeros at S

Fires on an activation that linears read and in which calibration saw a few channels S tower over the others:
their part of the product is computed in float beside the integer product, whose range then only has to hold
the others. Nothing is taken away from x: its channels S meet rows of zeros, so that whatever an integer
product makes of them is multiplied by zero. All linears that read x share S.

`form="gather"` picks the channels out of x; `form="branch"`, for the hidden tensor of a feed-forward block,
computes them from S's columns of the linear before, so that nothing is gathered.

Exact in the reals: the sum over channels is taken in two parts.
Source: QLLM (arXiv 2310.08041, sec. 3.1), whose outlier channels go to many channels instead, and LLM.int8()
(arXiv 2208.07339), which parts them while running; for which channels, see `outliers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.passes.migrate.narrow import (
    Hidden,
    add_narrow_product,
    branch_channels,
    find_hidden,
    gather_channels,
    is_narrow,
    is_split,
)
from onnxq.passes.migrate.outliers import Choice, Product, choose_channels, rank_channels, side_by_side
from onnxq.passes.migrate.rounding_trial import TrialBits
from onnxq.passes.migrate.sites import Selection, Sites, sharing_obstacle
from onnxq.passes.migrate.split_evidence import split_examples
from onnxq.statistics import Statistic, TensorStatistics

Form = Literal["gather", "branch", "auto"]
Planned = tuple[tuple[str, int | tuple[int, ...]], ...]
_MOST = 8
"""At most one channel in so many leaves by choice: without a large part of it, any product errs less."""
_ROOM = 8.0
"""Part of float16's range that a narrow product may fill: one in this many."""


@dataclass(frozen=True, eq=False)
class Split:
    """An activation, the linears that read it, and the channels [k] that leave their products.

    Attributes:
        activation: The value.
        linears: The linears, in the order of the graph.
        channels: int64 [k], ascending.
        hidden: The feed-forward block that a narrow branch is made of; None where channels are gathered.
    """

    activation: ir.Value
    linears: tuple[Linear, ...]
    channels: np.ndarray
    hidden: Hidden | None


@dataclass(frozen=True)
class SplitChannels(Pass):
    """Linear whose input has outlier channels => those channels multiplied in float, beside it.

    Attributes:
        form: Where the channels come from: "gather", "branch" (only feed-forward blocks), or "auto" for a
            branch where there can be one and a Gather elsewhere.
        channels: How many channels leave; 0 lets their expected error decide.
        limit: Most channels that may leave where the error decides. From 16 on, integer products are wide
            enough for the narrow product to be quantized too, unless it is told to stay float.
        gain: How many times smaller the squared error must become to be worth a second product.
        sites: "norm" for what norms give, "hidden" for what none gives, or "all".
        only: Names of activations or linears that may be split, where there is no plan; all if empty.
        skip: Names of activations or linears that are left alone.
        plan: Pairs of a name (activation or linear) and its channels, or their number; where there is a
            plan, nothing else is split, and no gain is asked for.
        least: Fewest input channels and fewest output columns of a linear that is an integer product.
        measured: Whether the error is measured on tokens that calibration kept, or expected from the
            channels' extremes alone.
        weight_bits: Bits that weights will be rounded to, 2 to 16, as the error has it.
        activation_bits: Bits that the activation will be rounded to.
    """

    form: Form = "gather"
    channels: int = 0
    limit: int = 15
    gain: float = 1.5
    sites: Sites = "all"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    plan: Planned = ()
    least: int = 16
    measured: bool = True
    weight_bits: int = 8
    activation_bits: int = 8

    name: ClassVar[str] = "split-channels"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}), opset=13)

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears that may be split."""
        return self._selection().activations(model)

    def wanted(self, model: ir.Model) -> Mapping[Statistic, Iterable[ir.Value]]:
        """The channels' extremes, and tokens where an error is to be measured on them."""
        kinds = [Statistic.CHANNEL_EXTREMES, *([Statistic.ROWS] if self._chooses() else [])]
        return dict.fromkeys(kinds, tuple(self.observe(model)))

    def match(self, node: ir.Node, context: Context) -> Split | Reject | None:
        """The activation that the linear `node` is the first to read, and the channels to split off."""
        linear = find_linear(node)
        if not isinstance(linear, Linear) or is_narrow(linear):
            return linear if isinstance(linear, Reject) else None
        linears = self._selection().readers(linear)
        if not linears or linears[0].node is not node:
            return None
        label = str(linear.activation.name)
        if reason := _obstacle(linears):
            return Reject(reason, label)
        hidden = find_hidden(linear.activation) if self.form != "gather" else None
        if hidden is None and self.form == "branch":
            return Reject("no feed-forward block that could be narrowed gives it", label)
        chosen = self._chosen(linears, context.statistics.get(label))
        if isinstance(chosen, str):
            return Reject(chosen, label)
        return Split(linear.activation, linears, chosen, hidden)

    def rewrite(self, found: Split, edit: Edit) -> None:
        """Compute the channels apart once, and give each linear its narrow product."""
        near = found.linears[0].node
        if found.hidden is not None:
            narrow = branch_channels(found.hidden, found.channels, near, edit)
        else:
            name = f"{found.activation.name}_outliers"
            narrow = gather_channels(found.activation, found.channels, name, near, edit)
        for linear in found.linears:
            add_narrow_product(linear, narrow, found.channels, edit)

    def _chooses(self) -> bool:
        """Whether a measured error may decide how many channels leave."""
        return (
            self.measured
            and not self.channels
            and (not self.plan or any(count == 0 for _, count in self.plan))
        )

    def _selection(self) -> Selection:
        only = tuple(name for name, _ in self.plan) or self.only
        return Selection(self.sites, only, self.skip, self.least)

    def _chosen(self, linears: tuple[Linear, ...], seen: TensorStatistics | None) -> np.ndarray | str:
        """The channels to split off, or why none."""
        planned = self._planned(linears)
        known = seen is not None and seen.channel is not None and seen.channel.low.size == linears[0].channels
        if not known and (linears[0].dtype == np.float16 or not isinstance(planned, tuple)):
            return "calibration has no statistics of it"
        product = self._product(linears, seen)
        if isinstance(planned, tuple):
            wrong = [channel for channel in planned if not 0 <= channel < linears[0].channels]
            if wrong or not planned:
                return f"it has no channel {wrong[0]}" if wrong else "the plan names no channel"
            channels = np.unique(np.array(planned, np.int64))
        elif planned:
            channels = rank_channels(product, planned)
        else:
            choice = choose_channels(product, min(self.limit, linears[0].channels // _MOST))
            if reason := self._not_worth_it(choice):
                return reason
            channels = choice.channels
        return _overflow(linears, product, channels) or channels

    def _product(self, linears: tuple[Linear, ...], seen: TensorStatistics | None) -> Product:
        weight = side_by_side([linear.weight for linear in linears])
        bits = TrialBits(self.weight_bits, self.activation_bits, margin=0.0)
        if seen is None or seen.channel is None:
            nothing = np.zeros(linears[0].channels)
            return Product(nothing, nothing, weight, bits=bits)
        rows = seen.rows.values if self.measured and seen.rows is not None else None
        return Product(seen.channel.low, seen.channel.high, weight, rows, bits)

    def _planned(self, linears: tuple[Linear, ...]) -> int | tuple[int, ...]:
        """What the plan says, or else the number of channels that all have in common."""
        plan = dict(self.plan)
        names = [str(linears[0].activation.name), *(label_of(linear.node) for linear in linears)]
        return next((plan[name] for name in names if name in plan), self.channels)

    def _not_worth_it(self, choice: Choice) -> str:
        if not len(choice.channels) or choice.gain < self.gain:
            return f"no channel stands out: the squared error would fall {choice.gain:.2f} times only"
        return ""

    @classmethod
    def examples(cls) -> Examples:
        """Towering channels before one linear, several, a residual; even or unseen ones, shared weights."""
        return split_examples()


def _obstacle(linears: tuple[Linear, ...]) -> str:
    split = any(is_split(linear) for linear in linears)
    return sharing_obstacle(linears) or ("its channels are split already" if split else "")


def _overflow(linears: tuple[Linear, ...], product: Product, channels: np.ndarray) -> str:
    """Why the narrow product may leave float16, in which two large parts may cancel; "" if it cannot."""
    if all(linear.dtype != np.float16 for linear in linears):
        return ""
    reach = np.maximum(np.abs(product.low), np.abs(product.high))[channels]
    largest = float((reach @ np.abs(product.weight[channels])).max(initial=0.0))
    return (
        "the narrow product might overflow float16"
        if largest * _ROOM > float(np.finfo(np.float16).max)
        else ""
    )

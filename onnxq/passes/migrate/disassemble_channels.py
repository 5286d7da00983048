"""x @ W  =>  (x[..., idx] / T[idx]) @ W[idx],  channel j repeated T_j = ceil(reach_j / θ) times

Fires on an activation that linears read and in which calibration saw channels tower over the others: they
go to copies that are T times smaller, so that the range is that of the others and no weight grows.
Where a linear gives the activation, or is multiplied in, its columns are repeated and nothing is added; a
norm takes the division and a Gather repeats; anything else gets a Gather and a Mul. See `widen` for the
forms and `copies` for the choice of θ.

Exact in the reals: T_j copies of x_j / T_j meet the same row W_j.
Source: channel disassembly of QLLM (arXiv 2310.08041, sec. 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.linear import Linear, find_linear, rewrite_linear
from onnxq.ir.precision import round_once
from onnxq.passes.migrate.copies import Rules, choose_copies, copies_at, offsets_of, step_of
from onnxq.passes.migrate.outliers import Product, side_by_side
from onnxq.passes.migrate.rounding_trial import TrialBits
from onnxq.passes.migrate.sites import Selection, Sites, names_of, sharing_obstacle
from onnxq.passes.migrate.split_evidence import disassembly_examples
from onnxq.passes.migrate.widen import WIDENED, Source, find_source, widen
from onnxq.statistics import Statistic, TensorStatistics


@dataclass(frozen=True, eq=False)
class Disassembly:
    """An activation, the linears that read it, and the copies [C] of its channels.

    Attributes:
        source: How the activation is widened.
        linears: The linears, in the order of the graph.
        counts: int64 [C], copies of each channel.
        offsets: What each copy is moved by, float64 [sum of counts]; None where none is.
    """

    source: Source
    linears: tuple[Linear, ...]
    counts: np.ndarray
    offsets: np.ndarray | None


@dataclass(frozen=True)
class DisassembleChannels(Pass):
    """Linear whose input has outlier channels => those channels as several smaller copies.

    Attributes:
        theta: What a copy reaches at most; 0 lets the error decide.
        ratio: Most channels that the threshold may add, as part of those there are (padding comes on top).
        multiple: The number of channels is rounded up to a multiple of this, by copying further channels.
        gain: How many times smaller the squared error must become to be worth it.
        stagger: Whether copies are moved by parts of a step, so that they round in turn; costs an Add. The
            step is that of a range as seen, with this margin, in codes of these bits.
        insert_nodes: Whether nodes may be inserted; without, only linears' columns are repeated.
        sites: "norm" for what norms give, "hidden" for what none gives, or "all".
        only: Names of activations or linears that may be touched, where there is no plan; all if empty.
        skip: Names of activations or linears that are left alone.
        plan: Pairs of a name (activation or linear) and its theta (0 lets the error decide); where there is
            a plan, nothing else is touched.
        least: Fewest input channels and fewest output columns of a linear that is an integer product.
        measured: Whether the error is measured on tokens that calibration kept, or expected from the
            channels' extremes alone.
        weight_bits: Bits that weights will be rounded to, 2 to 16, as the error has it.
        activation_bits: Bits that the activation will be rounded to.
        margin: Part by which its range will be widened.
    """

    theta: float = 0.0
    ratio: float = 0.1
    multiple: int = 16
    gain: float = 1.5
    stagger: bool = False
    insert_nodes: bool = True
    sites: Sites = "all"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    plan: tuple[tuple[str, float], ...] = ()
    least: int = 16
    measured: bool = True
    weight_bits: int = 8
    activation_bits: int = 8
    margin: float = 0.0

    name: ClassVar[str] = "disassemble-channels"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}), opset=13)

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears that may be touched."""
        return self._selection().activations(model)

    def wanted(self, model: ir.Model) -> Mapping[Statistic, Iterable[ir.Value]]:
        """The channels' extremes, and tokens where an error is to be measured on them."""
        kinds = [Statistic.CHANNEL_EXTREMES, *([Statistic.ROWS] if self.measured else [])]
        return dict.fromkeys(kinds, tuple(self.observe(model)))

    def match(self, node: ir.Node, context: Context) -> Disassembly | Reject | None:
        """The activation that the linear `node` is the first to read, and the copies of its channels."""
        linear = find_linear(node)
        if not isinstance(linear, Linear):
            return linear
        label = str(linear.activation.name)
        linears = self._selection().readers(linear)
        if not linears or linears[0].node is not node or WIDENED in label:
            return None
        if reason := sharing_obstacle(linears):
            return Reject(reason, label)
        source = find_source(linear.activation, linears)
        if source.nodes and not self.insert_nodes:
            return Reject("only a new node could repeat its channels", label)
        seen = context.statistics.get(label)
        if seen is None or seen.channel is None or seen.channel.low.size != linear.channels:
            return Reject("calibration has no statistics of it", label)
        product = self._product(linears, seen)
        counts = self._counts(product, linears)
        if isinstance(counts, str):
            return Reject(counts, label)
        offsets = offsets_of(counts, step_of(product, counts, stagger=True)) if self.stagger else None
        return Disassembly(source, linears, counts, offsets)

    def rewrite(self, found: Disassembly, edit: Edit) -> None:
        """Repeat the channels, and the rows that meet them."""
        near, index = found.linears[0].node, np.repeat(np.arange(len(found.counts)), found.counts)
        # Rows are read before the producer changes: a weight may be shared with it.
        rows = [linear.weight.astype(np.float64)[index] for linear in found.linears]
        biases = [linear.bias for linear in found.linears]
        activation = widen(found.source, found.counts, found.linears[0], edit)
        moved = None
        if found.offsets is not None and self.insert_nodes:
            moved = round_once(found.offsets, found.linears[0].dtype)
            shift = edit.constant(moved, f"{activation.name}_offsets", near=near)
            (activation,) = edit.insert(
                "Add",
                [activation, shift],
                before=near,
                names=[f"{activation.name}_staggered"],
                like=activation,
            )
        for linear, weight, bias in zip(found.linears, rows, biases, strict=True):
            wide = replace(linear, channels=len(index))
            if moved is not None:
                offset = moved.astype(np.float64) @ weight
                bias = -offset if bias is None else bias.astype(np.float64) - offset
            edit.rewire(linear.node, 0, activation)
            rewrite_linear(wide, edit, weight, bias)

    def _selection(self) -> Selection:
        only = tuple(name for name, _ in self.plan) or self.only
        return Selection(self.sites, only, self.skip, self.least)

    def _product(self, linears: tuple[Linear, ...], seen: TensorStatistics) -> Product:
        assert seen.channel is not None
        rows = seen.rows.values if self.measured and seen.rows is not None else None
        weight = side_by_side([linear.weight for linear in linears])
        bits = TrialBits(self.weight_bits, self.activation_bits, self.margin)
        return Product(seen.channel.low, seen.channel.high, weight, rows, bits)

    def _counts(self, product: Product, linears: tuple[Linear, ...]) -> np.ndarray | str:
        """The copies of each channel, or why none."""
        rules = Rules(self.ratio, self.multiple, self.stagger)
        plan = dict(self.plan)
        names = sorted(set().union(*(names_of(linear) for linear in linears)))
        theta = next((plan[name] for name in names if name in plan), self.theta)
        if theta > 0:
            counts = copies_at(product, theta, rules)
            return counts if (counts > 1).any() else f"no channel reaches further than {theta:g}"
        chosen = choose_copies(product, rules)
        if not (chosen.counts > 1).any() or chosen.gain < self.gain:
            return f"copies would lower the squared error {chosen.gain:.2f} times only"
        return chosen.counts

    @classmethod
    def examples(cls) -> Examples:
        """Linears, norms, gated and plain feed-forwards, residuals; even or unseen channels."""
        return disassembly_examples()

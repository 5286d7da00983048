"""x -> linear  =>  x * (1/s) -> linear with rows * s
act(g) * linear(y; W, b) -> linear  =>  act(g) * linear(y; W/s, b/s) -> linear with rows * s
P (y W + b) -> linear  =>  P (y (W/s) + (b - z)/s) -> linear with rows * s, bias + z W

Fires on an activation that no norm gives, such as a Gelu's output, where calibration saw channels that tower
over the others and evening them out lowers the error of rounded products enough. Where the columns of a
linear above can take the scale (`places`: a gated product, a ReLU, an attention's values, a linear without
activation), it costs nothing, and a shift can go with it; elsewhere a Mul is inserted, which has to pay.

The threshold is found in closed form (`scales`) or by trial on the linears' output (`search`).

Source: the scale of Outlier Suppression+ (arXiv 2304.09145, sec. 3) where no norm can take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.channels import live_channels
from onnxq.ir.linear import Linear, find_linear, rewrite_linear
from onnxq.ir.norm import norm_giving
from onnxq.ir.precision import fits
from onnxq.ir.walk import nodes
from onnxq.passes.migrate.migration import MIGRATED, absorbed, is_widely_shared
from onnxq.passes.migrate.narrow import is_narrow
from onnxq.passes.migrate.places import Place, find_place
from onnxq.passes.migrate.rounding_trial import TrialBits
from onnxq.passes.migrate.scales import choose_scale, expected_error
from onnxq.passes.migrate.search import Range, Search, rows_of, search_scale, terms_behind
from onnxq.passes.migrate.token_scale import TokenObjective
from onnxq.passes.norm_evidence import activation_examples
from onnxq.statistics import Statistic

_HARDLY = 1e-3


@dataclass(frozen=True, eq=False)
class ScaledActivation:
    """An activation, the linears that read it, and what they are to read instead: (x - shift) / scale.

    Attributes:
        activation: The value.
        linears: Every linear that reads it.
        scale: Each channel's divisor [C].
        shift: What is taken off each channel first [C]; zeros without a place that can take it.
        place: The linear whose columns take both; None for a Mul.
    """

    activation: ir.Value
    linears: tuple[Linear, ...]
    scale: np.ndarray
    shift: np.ndarray
    place: Place | None

    def fits(self) -> bool:
        """Whether every new number has room in its element type."""
        pairs = [(linear, absorbed(linear, self.scale, self.shift)) for linear in self.linears]
        if self.place is not None:
            pairs.append((self.place.linear, self.place.absorbed(self.scale, self.shift)))
        return all(
            fits(array, linear.dtype) for linear, arrays in pairs for array in arrays if array is not None
        )


@dataclass(frozen=True)
class InsertScale(Pass):
    """Uneven activation, then linear => evened out for nothing or by a Mul, the linear compensating.

    Attributes:
        gain: How many times smaller the squared error must become to be worth a Mul.
        free_gain: The same where it costs nothing.
        insert_nodes: Whether a Mul may be inserted.
        shift: Whether channels are centred where that costs nothing.
        search: How the scale is found and the gain is judged: "closed" from the channels' extremes;
            "linear" or "output" by trial on the output of the linears; "token" from tokens, each of which is
            to have a range of its own.
        weight_bits: Bits of weights, in a trial or in closed form.
        activation_bits: Bits of the activation.
        margin: Part by which the activation's range is widened in a trial.
        only: Names of the only activations to scale; all if there are none.
    """

    gain: float = 1.1
    free_gain: float = 1.02
    insert_nodes: bool = True
    shift: bool = True
    search: Search = "closed"
    weight_bits: int = 8
    activation_bits: int = 8
    margin: float = 0.1
    only: tuple[str, ...] = ()

    name: ClassVar[str] = "insert-scale"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}))

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears that no norm gives."""
        found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
        return [linear.activation for linear in found if norm_giving(linear.activation) is None]

    def wanted(self, model: ir.Model) -> Mapping[Statistic, Iterable[ir.Value]]:
        """Extremes, and for trials rows."""
        values = list(self.observe(model))
        kinds = [Statistic.CHANNEL_EXTREMES, *([Statistic.ROWS] if self.search != "closed" else [])]
        return dict.fromkeys(kinds, values)

    def match(self, node: ir.Node, context: Context) -> ScaledActivation | Reject | None:
        """The activation that the linear `node` reads, if evening it out pays."""
        linear = find_linear(node)
        if not isinstance(linear, Linear) or norm_giving(linear.activation) or is_narrow(linear):
            return linear if isinstance(linear, Reject) else None
        label = str(linear.activation.name)
        if self.only and label not in self.only:
            return None
        seen = context.statistics.get(label)
        if seen is None and label.endswith(MIGRATED):
            return None
        if seen is None or seen.channel is None:
            return Reject("calibration has no statistics of it", label)
        linears = _readers(linear.activation)
        if not linears:
            return Reject("only a subgraph reads it", label)
        if any(is_widely_shared(reader) for reader in linears):
            return Reject("the weight of a linear that reads it is shared widely", label)
        if seen.channel.low.size != linear.channels:
            return Reject("calibration saw another number of channels", label)
        place = find_place(linear.activation, len(linears))
        if place is not None and any(place.linear.node is reader.node for reader in linears):
            place = None
        if place is None and not self.insert_nodes:
            return Reject("only a new node could scale it", label)
        return self._choose(linear.activation, linears, place, context)

    def rewrite(self, found: ScaledActivation, edit: Edit) -> None:
        """Divide the channels, multiply the rows."""
        activation, scale = found.activation, found.scale
        for linear in found.linears:
            rewrite_linear(linear, edit, *absorbed(linear, scale, found.shift))
        if found.place is not None:
            found.place.apply(edit, scale, found.shift)
            edit.rename(activation, f"{activation.name}{MIGRATED}")
            return
        first = found.linears[0]
        divisor = edit.constant((1 / scale).astype(first.dtype), f"{activation.name}_scale", near=first.node)
        (scaled,) = edit.insert(
            "Mul",
            [activation, divisor],
            before=first.node,
            names=[f"{activation.name}{MIGRATED}"],
            like=activation,
        )
        for linear in found.linears:
            edit.rewire(linear.node, 0, scaled)

    def _choose(
        self, activation: ir.Value, linears: tuple[Linear, ...], place: Place | None, context: Context
    ) -> ScaledActivation | Reject:
        """The scale and shift, if they pay."""
        label = str(activation.name)
        weights = [linear.weight for linear in linears]
        seen = context.statistics[label].channel
        assert seen is not None
        low, high = (seen.low, seen.high) if place is None else place.joined(seen.low, seen.high)
        channels = Range(low, high, live_channels(weights))
        shift = np.zeros(low.shape)
        if self.shift and place is not None and place.shifts:
            shift = _middle(channels)
        try:
            if self.search == "token":
                objective = TokenObjective(
                    rows_of(label, context) - shift, weights, None if place is None else place.columns
                )
                scale = objective.scale()
                before, after = objective.error(np.ones(scale.shape)), objective.error(scale)
            else:
                scale, before, after = self._search(channels, shift, linears, label, context)
        except LookupError as trouble:
            return Reject(str(trouble.args[0]), label)
        needed = self.gain if place is None else self.free_gain
        if before < needed * after or (scale.max() <= 1 + _HARDLY and not shift.any()):
            times = before / max(after, 1e-300)
            return Reject(f"scaling would lower the expected error {times:.2f} times only", label)
        found = ScaledActivation(activation, linears, scale, shift, place)
        return found if found.fits() else Reject(f"a scaled weight overflows {linears[0].dtype.name}", label)

    def _search(
        self,
        channels: Range,
        shift: np.ndarray,
        linears: tuple[Linear, ...],
        label: str,
        context: Context,
    ) -> tuple[np.ndarray, float, float]:
        """The scale, and the errors with the tensor as it is and with scale and shift."""
        low, high = channels.low - shift, channels.high - shift
        ones = np.ones(shift.shape)
        if self.search == "closed":
            weights = [linear.weight for linear in linears]
            rows = [weight.astype(np.float64) for weight in weights]
            powers = sum(np.einsum("kn,kn->k", row, row) for row in rows)
            bits = TrialBits(self.weight_bits, self.activation_bits, margin=0.0)
            scale = choose_scale(low, high, weights, bits)
            before = expected_error(channels.low, channels.high, ones, rows, powers, bits)
            return scale, before, expected_error(low, high, scale, rows, powers, bits)
        bits = TrialBits(self.weight_bits, self.activation_bits, self.margin)
        terms, _ = terms_behind(linears, label, context, "linear")

        def error_of(scale: np.ndarray, offset: np.ndarray = shift) -> float:
            trial = channels.moved(scale, offset, bits)
            return sum(term.error(trial) for term in terms)

        reach = np.maximum(np.abs(low), np.abs(high))
        scale, after = search_scale(reach, channels.live, error_of)
        return scale, error_of(ones, np.zeros(shift.shape)), after

    @classmethod
    def examples(cls) -> Examples:
        """Gelu-like outputs, gated products; even or unseen activations, shared weights."""
        return activation_examples()


def _readers(value: ir.Value) -> tuple[Linear, ...]:
    """Linears that read `value` in its own graph, in the order of the graph."""
    node = value.producer()
    graph = node.graph if node is not None else value.graph
    readers = [user for user, index in value.uses() if index == 0 and user.graph is graph]
    found = [linear for user in readers if isinstance(linear := find_linear(user), Linear)]
    order = {node: position for position, node in enumerate(graph)} if graph is not None else {}
    return tuple(sorted(found, key=lambda linear: order[linear.node]))


def _middle(channels: Range) -> np.ndarray:
    """The middle of each live channel."""
    middle: np.ndarray = np.where(channels.live, (channels.low + channels.high) / 2, 0.0)
    return middle

"""x @ W  ~=>  (x[..., a] + x[..., b]) @ W',  pairs (a, b) of like channels merged into their mean

Fires on a linear whose input was disassembled: as many pairs of channels are merged as copies were added, so
that the product is no wider than it was. A pair's row is (W_a + W_b) / 2; a channel without a partner is its
own, with the row W_a / 2. Copies are left out of the matching. Which pairs, and what they cost, `pairing`
tells from second moments.

The merge is the one lossy part of QLLM, and split channels alone gain nearly all there is to gain (its table
D), so nothing calls this pass unless asked.
Source: channel assembly of QLLM (arXiv 2310.08041, sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.channels import live_channels
from onnxq.ir.linear import Linear, find_linear, rewrite_linear
from onnxq.ir.walk import attribute, constant_of, nodes, producer
from onnxq.passes.compress.evidence import assembly_examples
from onnxq.passes.compress.pairing import choose_pairs, merging_error
from onnxq.passes.migrate.outliers import side_by_side
from onnxq.passes.migrate.sites import Selection, Sites, sharing_obstacle
from onnxq.statistics import Statistic

ASSEMBLED = "_assembled"
"""End of the name of a tensor whose channels were merged."""


@dataclass(frozen=True, eq=False)
class Assembly:
    """An activation, the linears that read it, and the channels [K'] whose sums take its place.

    Attributes:
        activation: The value.
        linears: The linears, in the order of the graph.
        left: int64 [K'], one channel of each pair, or the channel itself.
        right: int64 [K'], the other one, or the channel itself.
    """

    activation: ir.Value
    linears: tuple[Linear, ...]
    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class AssembleChannels(Pass):
    """Linear with a disassembled input => like channels merged, until it is as wide as it was.

    Attributes:
        merge: How many pairs; 0 for as many as copies were added.
        tolerance: Most squared error of the output, as part of its square.
        sites: "norm" for what norms give, "hidden" for what none gives, or "all".
        only: Names of activations or linears that may be touched; all if empty.
        skip: Names of activations or linears that are left alone.
        least: Fewest input channels and fewest output columns of a linear that is an integer product.
    """

    merge: int = 0
    tolerance: float = 1e-3
    sites: Sites = "all"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    least: int = 16

    name: ClassVar[str] = "assemble-channels"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.SECOND_MOMENTS}), opset=13)

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears that may be touched and have channels to merge."""
        found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
        selection = Selection(self.sites, self.only, self.skip, self.least)
        taken = [linear for linear in found if selection.takes(linear)]
        return [linear.activation for linear in taken if self.merge or _added(linear.weight)]

    def match(self, node: ir.Node, context: Context) -> Assembly | Reject | None:
        """The activation that the linear `node` is the first to read, and its pairs."""
        linear = find_linear(node)
        if not isinstance(linear, Linear):
            return linear
        label = str(linear.activation.name)
        linears = Selection(self.sites, self.only, self.skip, self.least).readers(linear)
        if not linears or linears[0].node is not node or label.endswith(ASSEMBLED):
            return None
        if reason := sharing_obstacle(linears):
            return Reject(reason, label)
        weight = side_by_side([each.weight for each in linears])
        count = self.merge or _added(weight)
        if not count:
            return Reject("no channel of it was copied", label)
        seen = context.statistics.get(label)
        if seen is None or seen.moments is None or len(seen.moments.gram) != linear.channels:
            return Reject("calibration has no second moments of it", label)
        pairs = choose_pairs(seen.moments.gram, weight, _single(weight), count)
        if not len(pairs):
            return Reject("it has no two channels to merge", label)
        error = merging_error(seen.moments.gram, weight, pairs)
        if error > self.tolerance:
            return Reject(f"merging {len(pairs)} pairs would change the output by {error:.2g}", label)
        left = np.setdiff1d(np.arange(linear.channels), pairs[:, 1])
        right = left.copy()
        right[np.searchsorted(left, pairs[:, 0])] = pairs[:, 1]
        return Assembly(linear.activation, linears, left, right)

    def rewrite(self, found: Assembly, edit: Edit) -> None:
        """Add the two halves of each pair, and the rows that meet them."""
        near, name = found.linears[0].node, str(found.activation.name)
        source, index = _gathered(found.activation)
        halves: list[ir.Value] = []
        for side, channels in (("left", found.left), ("right", found.right)):
            chosen = channels if index is None else index[channels]
            constant = edit.constant(chosen.astype(np.int64), f"{name}_{side}_channels", near=near)
            halves += edit.insert(
                "Gather", [source, constant], {"axis": -1}, before=near, names=[f"{name}_{side}"]
            )
        (merged,) = edit.insert("Add", halves, before=near, names=[f"{name}{ASSEMBLED}"])
        for value in (*halves, merged):
            value.type = None if source.dtype is None else ir.TensorType(source.dtype)
            if source.shape is not None and len(source.shape):
                value.shape = ir.Shape([*source.shape[:-1], len(found.left)])
        for linear in found.linears:
            wide = linear.weight.astype(np.float64)
            partner = np.where((found.left == found.right)[:, None], 0.0, wide[found.right])
            bias, narrowed = linear.bias, replace(linear, channels=len(found.left))
            edit.rewire(linear.node, 0, merged)
            rewrite_linear(narrowed, edit, (wide[found.left] + partner) / 2, bias)
        made = found.activation.producer()
        if made is not None:
            edit.remove_unused(made)

    @classmethod
    def examples(cls) -> Examples:
        """Copied channels with like ones beside them; none copied, unlike or unseen ones."""
        return assembly_examples()


def _single(weight: np.ndarray) -> np.ndarray:
    """Live channels whose row no other channel has: neither dead nor a copy."""
    _, inverse, counts = np.unique(weight, axis=0, return_inverse=True, return_counts=True)
    return np.flatnonzero((counts[inverse.reshape(-1)] == 1) & live_channels([weight]))


def _added(weight: np.ndarray) -> int:
    """How many channels are copies: live rows that an earlier channel has already."""
    live = weight[live_channels([weight])]
    return len(live) - len(np.unique(live, axis=0))


def _gathered(activation: ir.Value) -> tuple[ir.Value, np.ndarray | None]:
    """What a Gather of channels made `activation` of, and which; itself and None if none did."""
    node = producer(activation, "Gather")
    index = constant_of(node.inputs[1]) if node is not None else None
    if node is None or index is None or node.inputs[0] is None or attribute(node, "axis", 0) != -1:
        return activation, None
    return node.inputs[0], index

"""Gather(act(x W + b), S), W2  =>  Slice(act(x W' + b')), W2',  with the columns S first in W', b', W2'

Fires on a Gather of a few channels out of the hidden tensor of a feed-forward block that linears read
besides, as splitting off outlier channels leaves it. ONNX Runtime gathers along the last axis element by
element on one thread; a Slice of neighbours costs next to nothing. So the channels picked are brought to the
front: the columns of the linear before change places, and so do the rows of those behind.

Exact in the reals: only the order changes in which a product sums up its channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.activation import Activation, find_activation
from onnxq.ir.linear import Linear, find_linear, linear_giving, rewrite_linear
from onnxq.ir.walk import attribute, constant_of, is_op, rank_of
from onnxq.passes.residual_evidence import slice_examples


@dataclass(frozen=True, eq=False)
class Picked:
    """A Gather, the block it picks from, and the order that brings what it picks to the front.

    Attributes:
        gather: The Gather.
        writer: The linear before the activation.
        activation: The activation between.
        readers: The linears behind.
        order: int64 [C], the channels picked first.
        count: How many are picked.
    """

    gather: ir.Node
    writer: Linear
    activation: Activation
    readers: tuple[Linear, ...]
    order: np.ndarray
    count: int


@dataclass(frozen=True)
class PickBySlice(Pass):
    """Gather of hidden channels => Slice, after reordering them."""

    name: ClassVar[str] = "pick-by-slice"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=13)

    def match(self, node: ir.Node, context: Context) -> Picked | Reject | None:
        """What the Gather `node` picks, and from where."""
        hidden = node.inputs[0] if is_op(node, "Gather") and len(node.inputs) == 2 else None
        if hidden is None or hidden.is_graph_output():
            return None
        channels, rank = constant_of(node.inputs[1]), rank_of(hidden)
        if channels is None or channels.ndim != 1 or rank is None or rank < 2:
            return None
        if attribute(node, "axis", 0) not in (-1, rank - 1):
            return None
        label = str(hidden.name)
        made = hidden.producer()
        activation = find_activation(made) if made is not None else None
        writer = linear_giving(activation.input) if activation is not None else None
        if activation is None or writer is None or activation.bias is not None:
            return Reject("no linear and activation give it, whose channels could change places", label)
        readers = _readers(hidden, node)
        if not readers or not _is_apart(writer, activation):
            return Reject("something else reads it in its order", label)
        picked = np.where(channels < 0, channels + writer.columns, channels).astype(np.int64)
        if len(set(picked.tolist())) != picked.size or picked.size == writer.columns:
            return Reject("it picks a channel twice, or all of them", label)
        order = np.concatenate([picked, np.setdiff1d(np.arange(writer.columns), picked)])
        return Picked(node, writer, activation, readers, order, int(picked.size))

    def rewrite(self, found: Picked, edit: Edit) -> None:
        """Bring the channels to the front, and slice them off there."""
        order, gather = found.order, found.gather
        bias = found.writer.bias
        rewrite_linear(
            found.writer, edit, found.writer.weight[:, order], None if bias is None else bias[order]
        )
        for reader in found.readers:
            rewrite_linear(reader, edit, reader.weight[order], reader.bias)
        hidden, output = gather.inputs[0], gather.outputs[0]
        name = str(output.name)
        bounds = [
            edit.constant(np.array([number], np.int64), f"{name}_{what}", near=gather)
            for number, what in ((0, "start"), (found.count, "end"), (-1, "axis"))
        ]
        (part,) = edit.insert("Slice", [hidden, *bounds], before=gather, names=[f"{name}_slice"], like=output)
        edit.take_over(output, part)
        inside = {value for node in found.activation.nodes for value in node.outputs}
        for value in (*inside, found.activation.input):
            edit.rename(value, f"{value.name}_reordered")

    @classmethod
    def examples(cls) -> Examples:
        """Outliers picked from hidden tensors; picked from elsewhere, or where the order shows."""
        return slice_examples()


def _readers(hidden: ir.Value, gather: ir.Node) -> tuple[Linear, ...]:
    """The linears that read `hidden` besides `gather`; none if anything else does."""
    found: list[Linear] = []
    for node, index in hidden.uses():
        if node is gather or is_op(node, "Shape"):
            continue
        linear = find_linear(node) if index == 0 and node.graph is gather.graph else None
        if not isinstance(linear, Linear) or linear.activation is not hidden:
            return ()
        found.append(linear)
    return tuple(found)


def _is_apart(writer: Linear, activation: Activation) -> bool:
    """Whether nothing outside the activation reads what lies in front of its output."""
    nodes = set(activation.nodes)
    inner = {value for node in nodes for value in node.outputs} - {activation.output}
    private = [*inner, writer.output]
    return all(
        not value.is_graph_output() and all(node in nodes for node, _ in value.uses()) for value in private
    )

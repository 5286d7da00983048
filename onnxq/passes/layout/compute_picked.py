"""Gather(act(x W + b), S)  =>  act(x W[:, S] + b[S])

Fires on a Gather of a few channels out of the hidden tensor of a feed-forward block that something reads
besides, as splitting off outlier channels leaves it. Runtimes that compile the graph fuse a linear layer, its
activation and the rounding behind into one kernel that writes integers, unless somebody else reads floats. So
the few channels are computed once more, by themselves, and the rest of the tensor is never written.

It costs as many more columns of the linear layer as channels are picked; it holds where those are more than a
sixteenth of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.activation import Activation, find_activation
from onnxq.ir.linear import Linear, linear_giving
from onnxq.ir.walk import attribute, constant_of, is_op, rank_of
from onnxq.passes.quantize_evidence import picked_examples

_SHARE = 16
"""One in so many channels may be computed twice."""


@dataclass(frozen=True, eq=False)
class Picked:
    """A Gather, the block it picks from, and what it picks.

    Attributes:
        gather: The Gather.
        writer: The linear before the activation.
        activation: The activation between.
        channels: int64 [S].
    """

    gather: ir.Node
    writer: Linear
    activation: Activation
    channels: np.ndarray


@dataclass(frozen=True)
class ComputePicked(Pass):
    """Gather of hidden channels => those channels computed by themselves."""

    name: ClassVar[str] = "compute-picked"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=13)

    def match(self, node: ir.Node, context: Context) -> Picked | Reject | None:
        """What the Gather `node` picks, and the linear that computes it."""
        hidden = node.inputs[0] if is_op(node, "Gather") and len(node.inputs) == 2 else None
        channels = None if hidden is None else constant_of(node.inputs[1])
        if hidden is None or channels is None or channels.ndim != 1:
            return None
        rank, axis, producer = rank_of(hidden), attribute(node, "axis", 0), hidden.producer()
        if axis != -1 and (rank is None or axis != rank - 1):
            return None
        activation = None if producer is None else find_activation(producer)
        writer = None if activation is None else linear_giving(activation.input)
        if activation is None or writer is None or activation.output is not hidden:
            return None
        if activation.bias is not None or any(each.graph is not node.graph for each in activation.nodes):
            return None
        if len(channels) * _SHARE > writer.columns:
            return Reject(f"{len(channels)} of {writer.columns} channels are many", label_of(node))
        if len(hidden.uses()) < 2 and not hidden.is_graph_output():
            return Reject("nothing else reads the channels", label_of(node))
        return Picked(node, writer, activation, channels % writer.columns)

    def rewrite(self, found: Picked, edit: Edit) -> None:
        """A narrow linear and the same activation in the Gather's place."""
        writer, node = found.writer, found.gather
        name = str(node.outputs[0].name)

        def constant(array: np.ndarray, what: str) -> ir.Value:
            return edit.constant(array.astype(writer.dtype), f"{name}_{what}", near=node)

        weight = constant(writer.weight[:, found.channels], "weight")
        (value,) = edit.insert("MatMul", [writer.activation, weight], before=node, names=[f"{name}_product"])
        if writer.bias is not None:
            bias = constant(writer.bias[found.channels], "bias")
            (value,) = edit.insert("Add", [value, bias], before=node, names=[f"{name}_sum"])
        edit.take_over(node.outputs[0], _repeated(found.activation, value, node, edit))

    @classmethod
    def examples(cls) -> Examples:
        """Channels of activations of several spellings; many channels, and channels nobody else reads."""
        return picked_examples()


def _repeated(activation: Activation, value: ir.Value, before: ir.Node, edit: Edit) -> ir.Value:
    """The nodes of an activation once more, on another argument."""
    known: dict[ir.Value, ir.Value] = {activation.input: value}
    inside = set(activation.nodes)
    for node in [each for each in before.graph or () if each in inside]:
        inputs = [None if each is None else known.get(each, each) for each in node.inputs]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        names = [f"{output.name}_picked" for output in node.outputs]
        made = edit.insert(node.op_type, inputs, attributes, domain=node.domain, before=before, names=names)
        known.update(zip(node.outputs, made, strict=True))
    return known[activation.output]

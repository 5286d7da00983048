"""Where(IsNaN(p), 0, p) MatMul V  =>  o = p MatMul V, Where(IsNaN(o), 0, o),  p = Softmax(.)

Fires on the guard that exporters of scaled dot-product attention put behind the softmax, for rows whose
every key is masked, where it is read by one product alone. A row of a softmax is NaN as a whole or nowhere,
so a row of the product is NaN just where the guard would have made it zero. Behind the product the guard has
the size of a head instead of the number of keys, and ONNX Runtime's Where is slow.

The same function for finite V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.walk import attribute, is_op, is_scalar_close, producer, rank_of
from onnxq.passes.attention_evidence import guard_examples


@dataclass(frozen=True, eq=False)
class Guard:
    """The Where, the zero it puts in, the softmax it guards, and the product that reads it."""

    where: ir.Node
    zero: ir.Value
    softmax: ir.Value
    product: ir.Node


@dataclass(frozen=True)
class MoveNanGuard(Pass):
    """Guard against NaN between softmax and product => behind the product."""

    name: ClassVar[str] = "move-nan-guard"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> Guard | Reject | None:
        """The guard that the Where `node` is."""
        if not is_op(node, "Where") or len(node.inputs) != 3:
            return None
        check, zero, softmax = node.inputs
        asked = producer(check, "IsNaN")
        made = producer(softmax, "Softmax")
        if asked is None or made is None or zero is None or softmax is None or asked.inputs[0] is not softmax:
            return None
        if not is_scalar_close(zero, 0.0):
            return Reject("it puts in something else than zero", node.name or "")
        if not _is_last(made, softmax):
            return Reject("the softmax is not over the last axis", node.name or "")
        output = node.outputs[0]
        uses = output.uses()
        user, index = next(iter(uses)) if len(uses) == 1 else (None, 0)
        if user is None or not is_op(user, "MatMul") or index != 0 or output.is_graph_output():
            return Reject("it is not read by one product alone, as the left factor", node.name or "")
        if user.graph is not node.graph:
            return Reject("the product is in another graph", node.name or "")
        return Guard(node, zero, softmax, user)

    def rewrite(self, found: Guard, edit: Edit) -> None:
        """Multiply first, then guard."""
        product, output = found.product, found.product.outputs[0]
        name = str(output.name)
        (plain,) = edit.insert(
            "MatMul",
            [found.softmax, product.inputs[1]],
            before=product,
            names=[f"{name}_unguarded"],
            like=output,
        )
        (check,) = edit.insert("IsNaN", [plain], before=product, names=[f"{name}_is_nan"])
        (guarded,) = edit.insert(
            "Where", [check, found.zero, plain], before=product, names=[f"{name}_guarded"], like=output
        )
        edit.take_over(output, guarded)

    @classmethod
    def examples(cls) -> Examples:
        """Guards in front of products; guards of other things, or read by others."""
        return guard_examples()


def _is_last(softmax: ir.Node, value: ir.Value) -> bool:
    """Whether a Softmax is over the last axis; opsets below 13 flatten, and say so by another default."""
    axis, source = attribute(softmax, "axis", -1), softmax.inputs[0]
    ranks = [rank_of(each) for each in (value, source) if each is not None]
    return axis == -1 or axis + 1 in ranks

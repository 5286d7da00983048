"""Attention(Q, K, V, mask)  =>  Attention(Q, K, V, max(mask, -52))

Fires on an attention operator whose mask hides keys by -inf or very low numbers. ONNX Runtime's softmax gives
a hidden key exp(-88) rather than 0: a denormal number, which x86 multiplies many times slower, in the softmax
and again in the product with the values. A causal prompt has one for half of its scores. Behind a bound of
-52 most are normal.

With -52 a hidden key weighs exp(d - 52) of the visible one with the highest score, where d is how much higher
it scores itself. For T keys that is less than float32 resolves (2**-24) while d < 35 - ln T, 30 for 256 of
them; SmolLM2 reaches 13. Beyond that hidden keys begin to show, as norms or biases of queries and keys may
bring about; so the pass loses, and `optimize` runs it only where samples cannot tell. A row that sees no key,
which was NaN if nothing guarded it, becomes the mean of the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import constant_of, input_of, is_op, producer
from onnxq.passes.fused_attention_evidence import mask_examples

_MASK = 3  # the input of the operator
_VERY_LOW = -1000.0  # biases of positions, whose order a bound would change, do not go there
_CLIMB_LIMIT = 16
_MAKES = ("Where", "Mul", "Sub", "Add", "Expand", "Cast", "Slice", "Unsqueeze", "Identity", "Max", "Min")


@dataclass(frozen=True)
class BoundMask(Pass):
    """Masks of -inf => masks that leave no denormal numbers.

    Attributes:
        lowest: What the lowest numbers of masks become.
    """

    lowest: float = -52.0

    name: ClassVar[str] = "bound-mask"
    contract: ClassVar[Contract] = Contract.LOSSY

    def match(self, node: ir.Node, context: Context) -> ir.Node | Reject | None:
        """An Attention with a mask that has no bound yet."""
        mask = input_of(node, _MASK) if is_op(node, "Attention") else None
        if mask is None or self._is_bound(mask):
            return None
        if mask.dtype not in (None, ir.DataType.FLOAT):
            return Reject("the mask is not float32", label_of(node))
        if not _hides(mask):
            return Reject("nothing tells that the mask hides keys by very low numbers", label_of(node))
        return node

    def rewrite(self, found: ir.Node, edit: Edit) -> None:
        """Put a Max behind the mask, once for all layers that share it."""
        mask = input_of(found, _MASK)
        assert mask is not None
        ends = [node.outputs[0] for node, _ in mask.uses() if node.graph is found.graph]
        bound = next((value for value in ends if self._is_bound(value)), None)
        if bound is None:
            lowest = edit.constant(np.array(self.lowest, np.float32), f"{mask.name}_lowest", near=found)
            name = f"{mask.name}_bound"
            (bound,) = edit.insert("Max", [mask, lowest], before=found, names=[name], like=mask)
        edit.rewire(found, _MASK, bound)

    def _is_bound(self, mask: ir.Value) -> bool:
        node = producer(mask, "Max")
        lowest = constant_of(node.inputs[-1]) if node is not None else None
        return lowest is not None and lowest.size == 1 and bool(lowest.item() >= self.lowest)

    @classmethod
    def examples(cls) -> Examples:
        """Masks of -inf and very low numbers; a given mask, biases of positions, a mask of booleans."""
        return mask_examples()


def _hides(mask: ir.Value | None, climb: int = _CLIMB_LIMIT) -> bool:
    """Whether very low numbers go into `mask`."""
    array = constant_of(mask)
    if array is not None:
        return array.dtype.kind == "f" and array.size > 0 and bool(array.min() < _VERY_LOW)
    node = producer(mask, *_MAKES)
    return node is not None and climb > 0 and any(_hides(each, climb - 1) for each in node.inputs)

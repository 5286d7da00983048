"""Add -> layer norm  =>  Sum -> layer norm

Fires on the addition of two computed tensors in front of a layer norm or RMS norm. ONNX Runtime fuses such an
Add into SkipLayerNormalization, which on CPUs is a scalar loop, several times slower than the vectorised norm
and the addition it replaces; it does not look for a Sum. Sum of two is Add, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import constant_shape, producer
from onnxq.passes.norm_evidence import sum_examples


@dataclass(frozen=True)
class SumBeforeNorm(Pass):
    """Residual Add in front of a norm => Sum, which is not fused into a slow kernel."""

    name: ClassVar[str] = "sum-before-norm"
    contract: ClassVar[Contract] = Contract.BITWISE
    needs: ClassVar[Needs] = Needs(opset=8)

    def match(self, node: ir.Node, context: Context) -> ir.Node | Reject | None:
        """The Add that a norm ending at `node` reads."""
        norm = find_norm(node)
        if not isinstance(norm, Norm):
            return norm
        add = producer(norm.input, "Add")
        if add is None:
            return Reject("no Add gives what it normalises", str(norm.output.name))
        if any(constant_shape(value) is not None for value in add.inputs):
            return Reject("the Add in front adds a constant", str(norm.output.name))
        return add

    def rewrite(self, found: ir.Node, edit: Edit) -> None:
        """Put a Sum in the Add's place."""
        output = found.outputs[0]
        name = str(output.name)
        (total,) = edit.insert("Sum", list(found.inputs), before=found, names=[f"{name}_sum"], like=output)
        edit.take_over(output, total)

    @classmethod
    def examples(cls) -> Examples:
        """Residual additions in front of norms; norms of inputs and of biased tensors."""
        return sum_examples()

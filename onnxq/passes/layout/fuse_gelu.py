"""x (1 + erf(x / √2)) / 2, spelled out  =>  Gelu(x)  (com.microsoft)

Fires on a Gelu of the erf kind spelled out as Div, Erf, Add and Mul in any order. ONNX Runtime fuses some of
these spellings itself and leaves others as five passes over the tensor. The operator is ONNX Runtime's own;
for a standard one see recompose-gelu.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.activation import Activation, find_gelu
from onnxq.passes.attention_evidence import gelu_examples


@dataclass(frozen=True)
class FuseGelu(Pass):
    """Spelled-out Gelu => ONNX Runtime's operator."""

    name: ClassVar[str] = "fuse-gelu"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> Activation | Reject | None:
        """A Gelu of more than one node."""
        found = find_gelu(node)
        if found is None or len(found.nodes) == 1:
            return None
        if found.kind != "gelu-erf":
            return Reject(f"it is a {found.kind}, which the operator does not compute", node.name or "")
        if found.input.dtype not in (None, ir.DataType.FLOAT):
            return Reject("the operator computes in float32 on CPUs", node.name or "")
        return found

    def rewrite(self, found: Activation, edit: Edit) -> None:
        """Put the operator in the nodes' place."""
        output = found.output
        name = str(output.name)
        last = found.nodes[-1]
        (fused,) = edit.insert(
            "Gelu", [found.input], domain="com.microsoft", before=last, names=[f"{name}_gelu"], like=output
        )
        edit.take_over(output, fused)

    @classmethod
    def examples(cls) -> Examples:
        """Spellings of the erf kind; the tanh kind, other functions, other types."""
        return gelu_examples()

"""A model of an older operator set, with attention cores for fuse-attention  =>  the same in set 23

Attention is an operator from set 23 on. A newer operator set shows to whoever runs the model, so it is raised
only for something. If one node cannot be converted the model stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Examples, ModelPass, Reject
from onnxq.errors import UnsupportedModel
from onnxq.ir.walk import is_op, nodes
from onnxq.passes.clean.raise_opset import RaiseOpset
from onnxq.passes.fused_attention_evidence import opset_examples
from onnxq.passes.layout.fuse_attention import Core, FuseAttention

OPSET = 23
"""The set in which Attention became an operator."""


@dataclass(frozen=True)
class RaiseForAttention(ModelPass):
    """Raise the operator set where attention cores can then be fused."""

    name: ClassVar[str] = "raise-for-attention"
    contract: ClassVar[Contract] = Contract.BITWISE
    raises_opset: ClassVar[bool] = True

    def transform(self, model: ir.Model) -> ir.Model:
        """`model` itself, converted if there is anything to fuse.

        Raises:
            UnsupportedModel: A node cannot be converted ("opset-conversion"), or nothing would be gained.
        """
        if model.opset_imports.get("", OPSET) >= OPSET:
            return model
        find, context = FuseAttention(), Context(model)
        found = [find.match(each, context) for each in nodes(model) if is_op(each, "Softmax")]
        if not any(isinstance(each, Core) for each in found):
            reasons = dict.fromkeys(each.reason for each in found if isinstance(each, Reject))
            raise UnsupportedModel(
                "; ".join(("no attention core in it could become an operator", *reasons)),
                hint="The model keeps its operator set.",
                slug="opset-conversion",
            )
        return RaiseOpset(OPSET).transform(model)

    @classmethod
    def examples(cls) -> Examples:
        """An attention core of an older set; one of a new set, and a Softmax of something else."""
        return opset_examples()

"""What a target forbids, looked for in a graph: one small function for each slug, no hardware needed.

A rule is told a node and says whether that node is an instance of its form. What a target forbids, and why,
is data (`onnxq.targets.reasons`); every slug there has its rule here, which a test holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.ir.walk import nodes
from onnxq.targets import activation_rules as activations
from onnxq.targets import operator_rules as operators
from onnxq.targets import weight_rules as weights
from onnxq.targets.target import Target

Rule = Callable[[ir.Node], bool]

RULES: Mapping[str, Rule] = {
    "signed-activation": activations.is_signed,
    "unsigned-activation": activations.is_unsigned,
    "asymmetric-activation": activations.is_asymmetric,
    "quantized-activation": activations.is_quantized,
    "activation-scale-per-channel": activations.has_scale_per_channel,
    "quantized-product-output": activations.requantizes_product,
    "quantized-softmax": activations.quantizes_softmax,
    "quantized-norm": activations.quantizes_norm,
    "quantized-gelu": activations.quantizes_gelu,
    "quantized-residual": activations.quantizes_residual,
    "unsigned-weight": weights.is_unsigned,
    "asymmetric-weight": weights.is_asymmetric,
    "wide-weight": weights.is_wide,
    "weight-scale-per-row": weights.has_scale_per_row,
    "dequantized-table": weights.dequantizes_table,
    "dequantized-weight": weights.dequantizes_alone,
    "integer-bias": weights.is_integer_bias,
    "skip-layer-norm": operators.is_skip_norm,
    "scale-of-the-batch": operators.finds_scale_of_batch,
    "operator-without-kernel": operators.lacks_cuda_kernel,
    "narrow-blocks": operators.has_narrow_blocks,
    "odd-blocks": operators.has_odd_blocks,
}
"""Rules that look at a node and its neighbours; "foreign-operator" looks at the model's own functions too."""
FOREIGN = "foreign-operator"


@dataclass(frozen=True)
class Violation:
    """A node in a form that the target forbids.

    Attributes:
        slug: Of the form.
        node: The node's name, or that of its first output.
        op: Its operator.
        reason: Why the target forbids it.
        owner: The pass that made the node; "" if it came with the model.
    """

    slug: str
    node: str
    op: str
    reason: str
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.node} ({self.op}): {self.slug}, {self.reason}"


def violations(model: ir.Model, target: Target) -> list[Violation]:
    """Everything in `model`, functions and subgraphs included, that `target` forbids, in graph order."""
    own = {(function.domain, function.name) for function in model.functions.values()}
    found = []
    for node in nodes(model):
        for slug, reason in target.forbidden.items():
            if (slug == FOREIGN and operators.is_foreign(node, own)) or (
                slug != FOREIGN and RULES[slug](node)
            ):
                name = node.name or str(node.outputs[0].name if node.outputs else "")
                owner = node.metadata_props.get("onnxq.pass", "")
                found.append(Violation(slug, name, node.op_type, reason, owner))
    return found

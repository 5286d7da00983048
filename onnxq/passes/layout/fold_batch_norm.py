"""BatchNormalization(Conv(x, W, b))  =>  Conv(x, W g, (b - mean) g + beta),  g = gamma / sqrt(variance + e)

Fires on a batch norm with constant numbers, in inference mode, that alone reads a convolution or a transposed
convolution. ONNX Runtime folds it itself into a Conv; others (and passes that look for what follows a
convolution) see the convolution alone afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.convolution import Convolution, find_convolution, only_reader, rewrite_convolution
from onnxq.ir.walk import attribute, constant_of, is_op, producer
from onnxq.passes.vision_evidence import batch_norm_examples

_FIRST_IN_INFERENCE_MODE = 14


@dataclass(frozen=True, eq=False)
class Folding:
    """A convolution, the batch norm behind it, what that multiplies and adds to each channel [columns]."""

    convolution: Convolution
    norm: ir.Node
    factor: np.ndarray
    term: np.ndarray


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Batch norm behind a convolution => the convolution's own weight and bias."""

    name: ClassVar[str] = "fold-batch-norm"
    contract: ClassVar[Contract] = Contract.REASSOCIATES

    def match(self, node: ir.Node, context: Context) -> Folding | Reject | None:
        """A batch norm, and the convolution whose result it alone reads."""
        if not is_op(node, "BatchNormalization") or len(node.inputs) < 5 or node.inputs[0] is None:
            return None
        made = producer(node.inputs[0], "Conv", "ConvTranspose")
        if made is None:
            return Reject("no convolution gives what it normalises", label_of(node))
        found = find_convolution(made)
        if not isinstance(found, Convolution):
            return found
        if only_reader(made.outputs[0]) is not node:
            return Reject("the convolution is read elsewhere", label_of(node))
        return _folding(found, node, context.opset)

    def rewrite(self, found: Folding, edit: Edit) -> None:
        """Give the convolution the new numbers and take the norm away."""
        convolution, factor = found.convolution, found.factor
        weight = convolution.weight.astype(np.float64)
        if convolution.transposed:
            shape = (convolution.groups, -1, *weight.shape[1:])
            scaled = weight.reshape(shape) * _per_group(factor, convolution.groups, len(convolution.kernel))
            weight = scaled.reshape(weight.shape)
        else:
            weight = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = 0.0 if convolution.bias is None else convolution.bias.astype(np.float64)
        rewrite_convolution(convolution, edit, weight, bias * factor + found.term)
        edit.take_over(found.norm.outputs[0], convolution.node.outputs[0])

    @classmethod
    def examples(cls) -> Examples:
        """Both kinds of convolution, with groups; norms of something else, shared ones, training ones."""
        return batch_norm_examples()


def _folding(convolution: Convolution, node: ir.Node, opset: int) -> Folding | Reject:
    if attribute(node, "training_mode", 0) or len(node.outputs) > 1:
        return Reject("it is trained on", label_of(node))
    if opset < _FIRST_IN_INFERENCE_MODE and (
        attribute(node, "spatial", 1) != 1 or attribute(node, "is_test", 1) != 1
    ):
        return Reject("it norms each position by itself", label_of(node))
    arrays = [constant_of(value) for value in node.inputs[1:5]]
    gamma, beta, mean, variance = (None if each is None else each.astype(np.float64) for each in arrays)
    if gamma is None or beta is None or mean is None or variance is None:
        return Reject("its numbers are not constant", label_of(node))
    epsilon = node.attributes.get("epsilon")
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = gamma / np.sqrt(variance + (1e-5 if epsilon is None else epsilon.as_float()))
    if not np.isfinite(factor).all():
        return Reject("a variance is not positive", label_of(node))
    return Folding(convolution, node, factor, beta - mean * factor)


def _per_group(factor: np.ndarray, groups: int, axes: int) -> np.ndarray:
    """`factor` [columns] for a transposed weight [groups, channels, columns / groups, kernel...]."""
    return factor.reshape(groups, 1, -1, *(1,) * axes)

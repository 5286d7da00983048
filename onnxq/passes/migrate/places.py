"""Where a divisor of an activation's channels costs nothing: in the columns of a linear above it.

    linear         x = y W + b                       x/s = y (W/s) + b/s                also shifted
    relu           x = relu(y W + b)                 x/s = relu(y (W/s) + b/s)          s > 0
    factor         x = g * (y W + b)                 x/s = g * (y (W/s) + b/s)
    context        x = heads(P (y W + b))            x/s = heads(P (y (W/s) + b/s))     also shifted

P are attention probabilities, which mix tokens and not channels; each row of them sums to 1, so that they
leave a shift as it is, unless something behind the softmax sets rows to zero. Where several query heads share
the values of one head, they have to share its scale. Where one linear gives a factor and its gate, or queries
with keys and values, only the columns of the factor or of the values change.

Source: the reference cases of Outlier Suppression+ (arXiv 2304.09145, sec. 3); that a context can take a
shift is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.ir.attention import AttentionBlock, find_attention
from onnxq.ir.channels import reshape_end
from onnxq.ir.flow import through_casts
from onnxq.ir.linear import Linear, find_linear, linear_giving, rewrite_linear
from onnxq.ir.part import Part, part_giving
from onnxq.ir.walk import axes_of, input_of, is_op, producer
from onnxq.passes.migrate.migration import is_widely_shared

_HEADS_SECOND = (0, 2, 1, 3)
"""[B, S, H, D] to [B, H, S, D] and back."""
_RANK = 4


@dataclass(frozen=True, eq=False)
class Place:
    """A linear that can take the scale, and perhaps the shift, of an activation.

    Attributes:
        linear: The linear; what comes between it and the activation goes nowhere else.
        columns: Which of its columns gives each channel of the activation, int [C].
        shifts: Whether a shift passes through too.
    """

    linear: Linear
    columns: np.ndarray
    shifts: bool

    def joined(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Extremes [C] in which channels from the same column have the same ones."""
        least, most = np.full(self.linear.columns, np.inf), np.full(self.linear.columns, -np.inf)
        np.minimum.at(least, self.columns, low)
        np.maximum.at(most, self.columns, high)
        return least[self.columns], most[self.columns]

    def absorbed(self, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias of the linear for an activation (x - shift) / scale, float64."""
        divisor, offset = np.ones(self.linear.columns), np.zeros(self.linear.columns)
        divisor[self.columns], offset[self.columns] = scale, shift
        weight = self.linear.weight.astype(np.float64) / divisor
        if self.linear.bias is None and not offset.any():
            return weight, None
        bias = 0.0 if self.linear.bias is None else self.linear.bias.astype(np.float64)
        return weight, (bias - offset) / divisor

    def apply(self, edit: Edit, scale: np.ndarray, shift: np.ndarray) -> None:
        """Divide the columns; both are [C] and equal where `columns` are."""
        rewrite_linear(self.linear, edit, *self.absorbed(scale, shift))


def find_place(activation: ir.Value, readers: int) -> Place | None:
    """Where the scale of `activation` costs nothing, if there is such a place.

    Args:
        activation: The value, read by linears.
        readers: How many linears read it: there must be nobody else.
    """
    if activation.is_graph_output() or len(activation.uses()) != readers:
        return None
    found = _direct(activation) or _factor(activation) or _context(activation)
    if (
        found is None
        or is_widely_shared(found.linear)
        or found.linear.node.graph is not _graph_of(activation)
    ):
        return None
    return found


def _direct(activation: ir.Value) -> Place | None:
    linear = linear_giving(activation)
    if linear is not None:
        return Place(linear, np.arange(linear.columns), shifts=True)
    relu = producer(activation, "Relu")
    before = relu.inputs[0] if relu is not None else None
    linear = linear_giving(before) if before is not None and _alone(before) else None
    return Place(linear, np.arange(linear.columns), shifts=False) if linear is not None else None


def _factor(activation: ir.Value) -> Place | None:
    """One factor of a product, as wide as the product."""
    product = producer(activation, "Mul")
    for value in product.inputs if product is not None else ():
        part = part_giving(value) if value is not None else None
        if part is not None and part.is_exclusive() and part.width == _width(activation):
            return Place(part.linear, part.columns, shifts=False)
    return None


def _context(activation: ir.Value) -> Place | None:
    """The values of an attention, where its heads are merged into `activation`."""
    merge = producer(activation, "Reshape")
    swap = producer(merge.inputs[0], "Transpose") if merge is not None else None
    weighted = producer(swap.inputs[0], "MatMul", "Attention") if swap is not None else None
    if swap is None or weighted is None or not _swaps_heads(swap):
        return None
    if not all(_alone(node.outputs[0]) for node in (swap, weighted)):
        return None
    block = _block_of(weighted)
    if block is None or block.heads is None:
        return None
    heads, size = block.heads.queries, block.heads.size
    given = input_of(weighted, 2 if is_op(weighted, "Attention") else 1)
    split = _split_of(given, block.heads.keys, size)
    width = _width(activation)
    if split is None or width != heads * size or heads % block.heads.keys:
        return None
    part, ends_shared = split
    if ends_shared and heads == block.heads.keys:
        return None
    head = np.arange(heads) // (heads // block.heads.keys)
    columns = part.start + (head[:, None] * size + np.arange(size)).reshape(-1)
    return Place(part.linear, columns, shifts=_sums_to_one(block, weighted))


def _block_of(weighted: ir.Node) -> AttentionBlock | None:
    """The attention whose last product is `weighted`."""
    node: ir.Node | None = weighted
    if is_op(weighted, "MatMul"):
        value = weighted.inputs[0]
        for _ in range(4):
            node = value.producer() if value is not None else None
            if node is None or is_op(node, "Softmax"):
                break
            value = node.inputs[_passed_by(node)] if node.inputs else None
    block = find_attention(node) if node is not None else None
    return block if isinstance(block, AttentionBlock) and block.weighted is weighted else None


def _passed_by(node: ir.Node) -> int:
    """Which input of a node behind a softmax the probabilities are: of a Where that guards them, the last."""
    return 2 if is_op(node, "Where") else 0


def _sums_to_one(block: AttentionBlock, weighted: ir.Node) -> bool:
    """Whether nothing but casts is between the softmax and the product."""
    probabilities = weighted.inputs[0]
    return (
        is_op(block.node, "Softmax")
        and probabilities is not None
        and through_casts(probabilities) is block.node.outputs[0]
    )


def _split_of(value: ir.Value | None, heads: int, size: int) -> tuple[Part, bool] | None:
    """The columns of a linear that are split into heads to give `value`, and whether heads are repeated."""
    shared = False
    repeated = _before_repeat(value, size)
    if repeated is not None:
        value, shared = repeated, True
    swap = producer(value, "Transpose")
    split = producer(swap.inputs[0], "Reshape") if swap is not None and _swaps_heads(swap) else None
    if swap is None or split is None or not _splits(split, heads, size):
        return None
    whole = split.inputs[0]
    inner = [value, swap.inputs[0], whole]
    if whole is None or any(part is None or not _alone(part) for part in inner):
        return None
    part = part_giving(whole)
    return (part, shared) if part is not None and part.width == heads * size and part.is_exclusive() else None


def _before_repeat(value: ir.Value | None, size: int) -> ir.Value | None:
    """The heads before each was repeated for the queries that share it: Unsqueeze, Expand, Reshape."""
    merge = producer(value, "Reshape")
    expand = producer(merge.inputs[0], "Expand") if merge is not None else None
    apart = producer(expand.inputs[0], "Unsqueeze") if expand is not None else None
    if merge is None or expand is None or apart is None or axes_of(apart) != (2,):
        return None
    sizes = reshape_end(merge)
    inner = (merge.inputs[0], expand.inputs[0], value)
    known = len(sizes) == _RANK and sizes[-1] == size
    return apart.inputs[0] if known and all(part is not None and _alone(part) for part in inner) else None


def _swaps_heads(node: ir.Node) -> bool:
    perm = node.attributes.get("perm")
    return perm is not None and not perm.is_ref() and tuple(perm.as_ints()) == _HEADS_SECOND


def _splits(node: ir.Node, heads: int, size: int) -> bool:
    """Whether a Reshape splits the last axis into heads of that size, in this order."""
    sizes = reshape_end(node)
    shape = node.outputs[0].shape
    known = list(sizes) if len(sizes) == _RANK else [None] * _RANK
    if shape is not None and len(shape) == _RANK:
        dims = [dim if isinstance(dim, int) else None for dim in shape]
        known = [one if one is not None else two for one, two in zip(known, dims, strict=True)]
    return known[-2:] == [heads, size]


def _width(activation: ir.Value) -> int | None:
    """Channels of what linears read: shapes may be missing, and weights are not."""
    found = (find_linear(node) for node, _ in activation.uses())
    return next((linear.channels for linear in found if isinstance(linear, Linear)), None)


def _alone(value: ir.Value) -> bool:
    """Whether one node alone reads `value`, and only once."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def _graph_of(value: ir.Value) -> ir.Graph | ir.Function | None:
    node = value.producer()
    return node.graph if node is not None else None

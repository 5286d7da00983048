"""x -> linear(W, b)  =>  MatMulNBits(x, W in blocks of 8, 4 or 2 bits, b)

Fires on any float32 linear; calibration is needed for rounding with feedback and for weighted ranges alone.
Every `block` input channels of a column share a scale (and a zero point, unless symmetric). The kernel rounds
activations while it runs, to signed 8 bits with a scale for each row and block (accuracy level 4): on x86
that is per-embedding-group activation quantization (Bondarenko et al. 2021, arXiv 2109.12948) without a range
to choose and without a node to add, so that a few large channels spoil their own block alone. Such products
are slower than those of `quantize-linears` on many rows and as fast on one: best for the layers whose
channels differ most, for decoding, and for size.

A linear whose weight is an embedding table as well shares the packed bytes with it: the embedding gathers
rows of the same initializer and dequantizes these alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.embedding import Embedding, linears_of
from onnxq.ir.labels import is_named
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.mixing import MIXES, only_mixes
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.block_codes import BLOCKS, BlockRange
from onnxq.passes.quantize.block_emission import BlockQuantizer, BlockTask, emit_blocks
from onnxq.passes.quantize.evidence import block_examples
from onnxq.passes.quantize.layer_data import LayerData
from onnxq.passes.quantize.rounding import DAMPING
from onnxq.passes.quantize.tied import tables_of
from onnxq.statistics import Statistic, Statistics, TensorStatistics

BITS = (2, 4, 8)
BLOCKS_OF_TWO_BITS = (32, 64, 128)


@dataclass(frozen=True)
class QuantizeBlocks(Pass):
    """Float linear => product with weights in blocks, activations rounded per row and block.

    Attributes:
        bits: 8, 4 or 2.
        block: Input channels that share a scale: 16, 32, 64, 128 or 256 (32, 64 or 128 with 2 bits).
        symmetric: No zero points.
        rounding: "nearest", or "feedback", where each number makes up for the errors of others, weighed by
            the second moments of the activations; kept where that lowers the error on held-out tokens.
        method: How far a block's scale reaches: "minmax", "mse" for the least squared error of the weight, or
            "weighted", where each row's error counts as much as its activations' mean square: the best for
            4 bits with either rounding (it needs second moments).
        damping: Of "feedback", with data without end; see `onnxq.passes.quantize.rounding.damping_for`.
        only: Names of linears to quantize; all if empty. ``*`` stands for any text.
        skip: Names of linears that stay float; ``*`` stands for any text.
        layers: Name, bits and block of single linears that differ from the rest; all of them are quantized.
        share_tables: Whether embeddings that read the same table read the packed one.
        least: Fewest input channels and fewest output columns that are worth it.
        float_activations: Whether activations stay as they are, as other providers than the CPU's have it
            anyway; the CPU's then dequantizes 8-bit weights whole at every run.
    """

    bits: int = 8
    block: int = 64
    symmetric: bool = True
    rounding: Literal["nearest", "feedback"] = "nearest"
    method: BlockRange = "minmax"
    damping: float = DAMPING
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    layers: tuple[tuple[str, int, int], ...] = ()
    share_tables: bool = True
    least: int = 16
    float_activations: bool = False

    name: ClassVar[str] = "quantize-blocks"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(opset=13)

    def wanted(self, model: ir.Model) -> Mapping[Statistic, Iterable[ir.Value]]:
        """Second moments of the inputs of linears, if the options ask for them; rows to judge feedback."""
        if not self._reads_moments:
            return {}
        linears = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
        chosen = [linear.activation for linear in linears if not isinstance(self._form(linear), str)]
        rows = {Statistic.ROWS: chosen} if self.rounding == "feedback" else {}
        return {Statistic.SECOND_MOMENTS: chosen, **rows}

    def match(self, node: ir.Node, context: Context) -> BlockTask | Reject | None:
        """A linear, those that share its weight, and the moments of its input."""
        linear = find_linear(node)
        if linear is None or isinstance(linear, Reject):
            return linear
        form = self._form(linear)
        if isinstance(form, str):
            return Reject(form, label_of(node))
        linears = (linear, *(other for other in self._twins(linear) if self._form(other) == form))
        seen = self._seen(linears, context.statistics) if self._reads_moments else None
        if self._reads_moments and seen is None:
            return Reject("calibration has no second moments of its input", label_of(node))
        quantizer = BlockQuantizer(0 if self.float_activations else form[1])
        return BlockTask(
            linears,
            self._tables(linear, form[1]),
            *form,
            symmetric=self.symmetric,
            method=self.method,
            feedback=self.rounding == "feedback",
            data=LayerData.of(seen, quantizer, linear.channels),
            moments=None if seen is None else seen.moments,
            damping=self.damping,
            float_activations=self.float_activations,
        )

    def rewrite(self, found: BlockTask, edit: Edit) -> None:
        """Put the product in blocks in the linear's place."""
        emit_blocks(found, edit)

    def _seen(self, linears: Sequence[Linear], statistics: Statistics) -> TensorStatistics | None:
        """What calibration saw of the inputs of all of them."""
        seen = [statistics.get(str(each.activation.name)) for each in linears]
        known = [each for each in seen if each is not None and each.moments is not None]
        return reduce(TensorStatistics.merge, known) if len(known) == len(linears) else None

    @property
    def _reads_moments(self) -> bool:
        return self.rounding == "feedback" or self.method == "weighted"

    def _form(self, linear: Linear) -> tuple[int, int] | str:
        """Bits and block of a linear, or why it stays as it is."""
        label = label_of(linear.node)
        own = next(((bits, block) for name, bits, block in self.layers if name == label), None)
        if is_named(label, self.skip):
            return "told to stay float"
        if only_mixes(linear):
            return MIXES
        if own is None and self.only and not is_named(label, self.only):
            return "not among the linears named"
        if linear.dtype.name != "float32":
            return f"it computes in {linear.dtype.name}, and these products round to float32's errors"
        if min(linear.channels, linear.columns) < self.least:
            return f"{linear.channels} x {linear.columns} is too small to pay"
        bits, block = own or (self.bits, self.block)
        return _obstacle(bits, block) or (bits, block)

    def _twins(self, linear: Linear) -> list[Linear]:
        """Other linears of the same graph that multiply by the same weight."""
        root = linear.root
        others = linears_of(root) if root is not None else []
        return [
            other
            for other in others
            if other.node is not linear.node
            and other.node.graph is linear.node.graph
            and np.array_equal(other.weight, linear.weight)
        ]

    def _tables(self, linear: Linear, block: int) -> tuple[Embedding, ...]:
        """Embeddings of the same graph whose rows are the columns of the weight."""
        if not self.share_tables or linear.channels % block:
            return ()
        return tuple(each for each in tables_of(linear, self.skip) if each.indices.shape is not None)

    @classmethod
    def examples(cls) -> Examples:
        """MatMul, MatMul and Add, Gemm, a tied table; linears that are small, or not float32."""
        return block_examples()


def _obstacle(bits: int, block: int) -> str:
    """Why ONNX Runtime has no kernel for that form; "" if it has."""
    if bits not in BITS:
        return f"blocks hold codes of 2, 4 or 8 bits, not {bits}"
    if block not in BLOCKS:
        return f"blocks are of 16, 32, 64, 128 or 256 channels, not {block}"
    if bits == 2 and block not in BLOCKS_OF_TWO_BITS:
        return f"2 bits in blocks of {block} are dequantized at every run; use blocks of 32, 64 or 128"
    return ""

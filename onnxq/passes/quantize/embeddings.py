"""Gather(table, ids)  =>  Gather(int8 codes, ids) * Gather(row scales, ids)

Fires on an embedding table large enough to be worth it that no linear shares. Each row has its own symmetric
scale, so that the error of a row does not depend on the others. The table is never dequantized as a whole:
ONNX Runtime would do that on every run for DequantizeLinear in front of a Gather.

With 4 bits each row is cut into blocks with a scale each, which GatherBlockQuantized dequantizes. A table
that a linear reads too is left to `quantize-blocks`, which lets both read the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.ir.labels import is_named
from onnxq.passes.quantize.block_codes import BLOCKS, block_grid, pack_blocks
from onnxq.passes.quantize.block_emission import gather_rows
from onnxq.passes.quantize.evidence import embedding_examples
from onnxq.passes.quantize.rounding import round_nearest
from onnxq.passes.quantize.tied import pick_rows
from onnxq.passes.quantize.weights import quantize_weight

NARROWEST = 8  # channels; a row's scale takes the place of four codes


@dataclass(frozen=True)
class QuantizeEmbeddings(Pass):
    """Float embedding table => int8 rows with a scale each.

    Attributes:
        least: Fewest elements of a table that is worth quantizing.
        skip: Names of Gather nodes that stay float; ``*`` stands for any text.
        bits: 8, or 4 for half the size, where the kernel of ONNX Runtime's own is wanted.
        block: Channels that share a scale with 4 bits: 16, 32, 64, 128 or 256.
    """

    least: int = 512
    skip: tuple[str, ...] = ()
    bits: Literal[4, 8] = 8
    block: int = 32

    name: ClassVar[str] = "quantize-embeddings"
    contract: ClassVar[Contract] = Contract.LOSSY

    def match(self, node: ir.Node, context: Context) -> Embedding | Reject | None:
        """An embedding with a float32 table of its own."""
        found = find_embedding(node)
        if found is None or isinstance(found, Reject):
            return found
        label = node.name or str(found.output.name)
        if is_named(label, self.skip):
            return Reject("told to stay float", label)
        if found.tied:
            return Reject(
                "a linear reads the table too, so the float table would stay beside the new one", label
            )
        if found.dtype != np.float32:
            return Reject(f"its table is {found.dtype.name}", label)
        if found.channels < NARROWEST or found.rows * found.channels < self.least:
            return Reject(f"{found.rows} x {found.channels} is too small to pay", label)
        if self.bits == 4 and (reason := self._obstacle(found)):
            return Reject(reason, label)
        return found

    def _obstacle(self, found: Embedding) -> str:
        """Why a table does not go into 4 bits."""
        if self.block not in BLOCKS:
            return f"blocks are of 16, 32, 64, 128 or 256 channels, not {self.block}"
        if found.channels % self.block:
            return f"rows of {found.channels} channels are not filled by blocks of {self.block}"
        return "the rank of its indices is not known" if found.indices.shape is None else ""

    def rewrite(self, found: Embedding, edit: Edit) -> None:
        """Gather codes and scales, and multiply."""
        if self.bits == 4:
            self._in_blocks(found, edit)
            return
        node = found.node
        label = node.name or str(found.output.name)
        rows = quantize_weight(found.table.T)
        codes = edit.constant(np.ascontiguousarray(rows.codes.T), f"{label}_int8", near=node)
        scales = edit.constant(rows.scale[:, None], f"{label}_scale", near=node)
        (scale,) = edit.insert("Gather", [scales, found.indices], before=node, names=[f"{label}_row_scale"])
        pick_rows(found, codes, scale, edit)

    def _in_blocks(self, found: Embedding, edit: Edit) -> None:
        weight, label = found.table.T, found.node.name or str(found.output.name)
        grid = block_grid(weight, self.bits, self.block, symmetric=True, method="mse")
        codes, scales, _ = pack_blocks(round_nearest(weight, grid), grid)
        packed = edit.constant(codes, f"{label}_blocks", near=found.node)
        scale = edit.constant(scales[:, :, None], f"{label}_scale", near=found.node)
        gather_rows(found, packed, scale, None, self.bits, edit)

    @classmethod
    def examples(cls) -> Examples:
        """Tables; tables that a caller may override, that are read otherwise, or that are small."""
        return embedding_examples()

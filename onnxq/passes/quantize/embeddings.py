"""Gather(table, ids)  =>  Gather(int8 codes, ids) * Gather(row scales, ids)

Fires on an embedding table large enough to be worth it that no linear shares. Each row has its own symmetric
scale, so that the error of a row does not depend on the others. The table is never dequantized as a whole:
ONNX Runtime would do that on every run for DequantizeLinear in front of a Gather.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.passes.quantize.evidence import embedding_examples
from onnxq.passes.quantize.weights import quantize_weight

NARROWEST = 8  # channels; a row's scale takes the place of four codes


@dataclass(frozen=True)
class QuantizeEmbeddings(Pass):
    """Float embedding table => int8 rows with a scale each.

    Attributes:
        least: Fewest elements of a table that is worth quantizing.
        skip: Names of Gather nodes that stay float; ``*`` stands for any text.
    """

    least: int = 512
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize-embeddings"
    contract: ClassVar[Contract] = Contract.LOSSY

    def match(self, node: ir.Node, context: Context) -> Embedding | Reject | None:
        """An embedding with a float32 table of its own."""
        found = find_embedding(node)
        if found is None or isinstance(found, Reject):
            return found
        label = node.name or str(found.output.name)
        if any(fnmatch.fnmatchcase(label, pattern) for pattern in self.skip):
            return Reject("told to stay float", label)
        if found.tied:
            return Reject(
                "a linear reads the table too, so the float table would stay beside the new one", label
            )
        if found.table.dtype != np.float32:
            return Reject(f"its table is {found.table.dtype.name}", label)
        if found.channels < NARROWEST or found.rows * found.channels < self.least:
            return Reject(f"{found.rows} x {found.channels} is too small to pay", label)
        return found

    def rewrite(self, found: Embedding, edit: Edit) -> None:
        """Gather codes and scales, and multiply."""
        node = found.node
        label = node.name or str(found.output.name)
        rows = quantize_weight(found.table.T)
        codes = edit.constant(np.ascontiguousarray(rows.codes.T), f"{label}_int8", near=node)
        scales = edit.constant(rows.scale[:, None], f"{label}_scale", near=node)
        (picked,) = edit.insert("Gather", [codes, found.indices], before=node, names=[f"{label}_codes"])
        (scale,) = edit.insert("Gather", [scales, found.indices], before=node, names=[f"{label}_row_scale"])
        to_float = {"to": int(ir.DataType.FLOAT)}
        (values,) = edit.insert("Cast", [picked], to_float, before=node, names=[f"{label}_values"])
        (product,) = edit.insert(
            "Mul", [values, scale], before=node, names=[f"{label}_rows"], like=found.output
        )
        edit.take_over(found.output, product)

    @classmethod
    def examples(cls) -> Examples:
        """Tables; tables that a caller may override, that are read otherwise, or that are small."""
        return embedding_examples()

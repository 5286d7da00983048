"""A language model's head and its embedding, which read one table, also read one table of codes.

The columns of the head's weight are the rows of the table. With a scale for each column, codes and scales of
the one are codes and scales of the other: the file holds them once, as rows, and turns them over for the
product. ONNX Runtime does that when it loads the model, and packs the result as it packs every weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.edit import label_of
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.ir.labels import is_named
from onnxq.ir.linear import Linear
from onnxq.passes.quantize.weights import QuantizedWeight


def tables_of(linear: Linear, skip: Sequence[str] = ()) -> tuple[Embedding, ...]:
    """Embeddings of the linear's graph whose rows are the columns of its weight, in the order of the graph.

    Args:
        linear: A head.
        skip: Names of embeddings that stay as they are; ``*`` stands for any text.
    """
    root = linear.root
    if root is None:
        return ()
    users = {node for node, index in root.uses() if index == 0 and node.graph is linear.node.graph}
    found = [
        embedding
        for node in linear.node.graph or ()
        if node in users and isinstance(embedding := find_embedding(node), Embedding)
    ]
    return tuple(
        each
        for each in found
        if not is_named(label_of(each.node), skip)
        and each.table.shape == linear.weight.T.shape
        and np.array_equal(each.table, linear.weight.T)
    )


def share_codes(
    linear: Linear, tables: Sequence[Embedding], weight: QuantizedWeight, edit: Edit
) -> tuple[ir.Value, ir.Value]:
    """Let embeddings pick rows of the head's codes, and give the head the same codes as columns.

    Args:
        linear: The head, which reads float32.
        tables: At least one; see `tables_of`.
        weight: The head's codes [K, N] and scales [N].
        edit: The edit that records the change.

    Returns:
        The codes int8 [K, N], and their scales [N].
    """
    label, first = label_of(linear.node), tables[0].node
    rows = edit.constant(np.ascontiguousarray(weight.codes.T), f"{label}_int8_rows", near=first)
    scales = edit.constant(weight.scale, f"{label}_scale", near=first)
    last = edit.constant(np.array([-1], np.int64), f"{label}_last_axis", near=first)
    for table in tables:
        _pick_rows(table, rows, scales, last, edit)
    turned = {"perm": [1, 0]}
    (columns,) = edit.insert("Transpose", [rows], turned, before=linear.node, names=[f"{label}_int8"])
    return columns, scales


def _pick_rows(table: Embedding, rows: ir.Value, scales: ir.Value, last: ir.Value, edit: Edit) -> None:
    """Gather codes and scales of the rows, and multiply."""
    node, label = table.node, label_of(table.node)

    def step(
        op_type: str, inputs: Sequence[ir.Value], what: str, attributes: dict[str, object] | None = None
    ) -> ir.Value:
        return edit.insert(op_type, inputs, attributes, before=node, names=[f"{label}_{what}"])[0]

    picked = step("Gather", [rows, table.indices], "codes")
    values = step("Cast", [picked], "values", {"to": int(ir.DataType.FLOAT)})
    scale = step("Unsqueeze", [step("Gather", [scales, table.indices], "scale"), last], "row_scale")
    (product,) = edit.insert("Mul", [values, scale], before=node, names=[f"{label}_rows"], like=table.output)
    edit.take_over(table.output, product)

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
    """Embeddings in float32 whose rows are the columns of the linear's weight, in the order of its graph.

    Args:
        linear: A head.
        skip: Names of embeddings that stay as they are; ``*`` stands for any text.
    """
    root = linear.root
    if root is None:
        return ()
    users = {node for node, index in root.uses() if index == 0 and node.graph is linear.node.graph}
    if not users:
        return ()
    found = [
        embedding
        for node in linear.node.graph or ()
        if node in users and isinstance(embedding := find_embedding(node), Embedding)
    ]
    return tuple(
        each
        for each in found
        if each.dtype == np.float32
        and not is_named(label_of(each.node), skip)
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
        node, own = table.node, label_of(table.node)
        (picked,) = edit.insert("Gather", [scales, table.indices], before=node, names=[f"{own}_scale"])
        (scale,) = edit.insert("Unsqueeze", [picked, last], before=node, names=[f"{own}_row_scale"])
        pick_rows(table, rows, scale, edit)
    turned = {"perm": [1, 0]}
    (columns,) = edit.insert("Transpose", [rows], turned, before=linear.node, names=[f"{label}_int8"])
    return columns, scales


def pick_rows(table: Embedding, codes: ir.Value, scale: ir.Value, edit: Edit) -> None:
    """Let an embedding pick rows of codes and multiply them by their scales.

    Args:
        table: The embedding.
        codes: int8 [rows, C].
        scale: Of the rows that it picks, the shape of its indices and [1] behind.
        edit: The edit that records the change.
    """
    node, label = table.node, label_of(table.node)
    (picked,) = edit.insert("Gather", [codes, table.indices], before=node, names=[f"{label}_codes"])
    to_float = {"to": int(ir.DataType.FLOAT)}
    (values,) = edit.insert("Cast", [picked], to_float, before=node, names=[f"{label}_values"])
    (product,) = edit.insert("Mul", [values, scale], before=node, names=[f"{label}_rows"], like=table.output)
    edit.take_over(table.output, product)

"""A new operation between a value and everyone who reads it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit


def append(edit: Edit, value: ir.Value, op_type: str, array: np.ndarray) -> ir.Value:
    """Let every reader of `value` read ``op_type(value, array)`` instead, under the name that `value` had.

    Args:
        edit: The edit that records the change.
        value: An output of a node (not of a subgraph's owner).
        op_type: ``"Add"`` or ``"Mul"``.
        array: The right-hand constant, of the element type of `value`.

    Returns:
        The new value.
    """
    node = _producer_of(value)
    return join(edit, value, op_type, edit.constant(array, f"{value.name}_{op_type.lower()}", near=node))


def join(edit: Edit, value: ir.Value, op_type: str, operand: ir.Value) -> ir.Value:
    """Let every reader of `value` read ``op_type(value, operand)`` instead, under the name that `value` had.

    The name follows the readers because names key calibration statistics and the model's outputs. The
    producer of `value` is rebuilt in front of itself, since only there all of its inputs exist and none of
    its readers do.

    Args:
        edit: The edit that records the change.
        value: An output of a node (not of a subgraph's owner).
        op_type: ``"Add"``, ``"Sum"`` or ``"Mul"``.
        operand: A constant, or what a node in front of the producer of `value` computes.

    Returns:
        The new value.
    """
    node = _producer_of(value)
    name, node_name, public = value.name, node.name, value.is_graph_output()
    copies = edit.insert(
        node.op_type,
        node.inputs,
        dict(node.attributes),
        before=node,
        names=[f"{out.name}_plain" if out is value else str(out.name) for out in node.outputs],
        domain=node.domain,
    )
    for old, new in zip(node.outputs, copies, strict=True):
        new.type, new.shape = old.type, old.shape
    copy = copies[value.index() or 0]
    (result,) = edit.insert(
        op_type, [copy, operand], before=node, names=[f"{name}_{op_type.lower()}ed"], like=value
    )
    for old, new in zip(node.outputs, copies, strict=True):
        edit.replace(old, result if old is value else new)
    edit.remove(node)
    rebuilt = copy.producer()
    if rebuilt is not None:
        rebuilt.name = node_name
        rebuilt.metadata_props.update({k: v for k, v in node.metadata_props.items() if k != "onnxq.pass"})
    if not public:
        result.name = name
    return result


def _producer_of(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name!r} is an input: nothing can be put behind its producer")
    return node

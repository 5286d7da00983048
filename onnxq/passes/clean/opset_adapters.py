"""What must change at a node when the default operator set goes from one version to the next.

An adapter gets a node of version v - 1 and makes it mean the same in version v, in place: its name, its
outputs and its metadata stay. It raises `Unconvertible` with the reason where it cannot. Operators without an
adapter changed only in what they accept, which the schema tells (see `raise_opset`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.edit import label_of

Adapter = Callable[[ir.Node, Edit], None]


class Unconvertible(Exception):
    """Why a node cannot go to the next version."""


def _taken(node: ir.Node, edit: Edit, name: str) -> ir.Attr | None:
    """Attribute `name`, taken off the node."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return None
    if attribute.is_ref():
        raise Unconvertible(f"attribute {name} is a parameter of its function")
    edit.set_attribute(node, name, None)
    return attribute


def _give(node: ir.Node, edit: Edit, index: int, array: np.ndarray, name: str) -> None:
    edit.rewire(node, index, edit.constant(array, f"{node.outputs[0].name}_{name}", near=node))


def _integers_to_inputs(**places: int) -> Adapter:
    """Integer attributes become int64 inputs at these places."""

    def adapter(node: ir.Node, edit: Edit) -> None:
        for name, index in places.items():
            attribute = _taken(node, edit, name)
            if attribute is not None and list(attribute.as_ints()):
                _give(node, edit, index, np.array(attribute.as_ints(), np.int64), name)

    return adapter


def _floats_to_inputs(**places: int) -> Adapter:
    """Float attributes become scalar inputs of the type of the data."""

    def adapter(node: ir.Node, edit: Edit) -> None:
        for name, index in places.items():
            attribute = _taken(node, edit, name)
            if attribute is None:
                continue
            data = node.inputs[0]
            if data is None or data.dtype is None:
                raise Unconvertible("the element type of its input is unknown")
            _give(node, edit, index, np.array(attribute.as_float(), data.dtype.numpy()), name)

    return adapter


def _pad(node: ir.Node, edit: Edit) -> None:
    _integers_to_inputs(pads=1)(node, edit)
    _floats_to_inputs(value=2)(node, edit)


def _top_k(node: ir.Node, edit: Edit) -> None:
    attribute = _taken(node, edit, "k")
    if attribute is not None:
        _give(node, edit, 1, np.array([attribute.as_int()], np.int64), "k")


def _dropout(node: ir.Node, edit: Edit) -> None:
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        raise Unconvertible("its mask is read, and means something else from opset 12 on")
    attribute = _taken(node, edit, "ratio")
    if attribute is not None:
        _give(node, edit, 1, np.array(attribute.as_float(), np.float32), "ratio")


def _softmax(node: ir.Node, edit: Edit) -> None:
    """Over all axes from `axis` on, flattened; from opset 13 on over `axis` alone."""
    attribute = node.attributes.get("axis")
    if attribute is not None and attribute.is_ref():
        raise Unconvertible("attribute axis is a parameter of its function")
    axis = 1 if attribute is None else attribute.as_int()
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if axis != -1 and (shape is None or axis != len(shape) - 1):
        raise Unconvertible("it runs over several axes at once, which opset 13 has not")
    edit.set_attribute(node, "axis", -1)


def _batch_norm_9(node: ir.Node, edit: Edit) -> None:
    attribute = _taken(node, edit, "spatial")
    if attribute is not None and attribute.as_int() != 1:
        raise Unconvertible("it is not spatial, which opset 9 has not")


def _batch_norm_14(node: ir.Node, edit: Edit) -> None:
    if len(node.outputs) > 1:
        raise Unconvertible("it is in training mode")


def _split_18(node: ir.Node, edit: Edit) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        edit.set_attribute(node, "num_outputs", len(node.outputs))


def _resize_11(node: ir.Node, edit: Edit) -> None:
    scales = node.inputs[1]
    edit.rewire(node, 2, scales)
    edit.rewire(node, 1, None)
    edit.set_attribute(node, "coordinate_transformation_mode", "asymmetric")
    edit.set_attribute(node, "nearest_mode", "floor")


def _resize_13(node: ir.Node, edit: Edit) -> None:
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and (mode.is_ref() or mode.as_string() == "tf_half_pixel_for_nn"):
        raise Unconvertible("its coordinate transformation went with opset 13")


def _roi_align(node: ir.Node, edit: Edit) -> None:
    if "coordinate_transformation_mode" not in node.attributes:
        edit.set_attribute(node, "coordinate_transformation_mode", "output_half_pixel")


def _grid_sample(node: ir.Node, edit: Edit) -> None:
    attribute = node.attributes.get("mode")
    if attribute is not None and attribute.is_ref():
        raise Unconvertible("attribute mode is a parameter of its function")
    mode = "bilinear" if attribute is None else attribute.as_string()
    edit.set_attribute(node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _dft(node: ir.Node, edit: Edit) -> None:
    attribute = _taken(node, edit, "axis")
    _give(node, edit, 2, np.array(1 if attribute is None else attribute.as_int(), np.int64), "axis")


def _refuse(reason: str) -> Adapter:
    def adapter(node: ir.Node, edit: Edit) -> None:
        raise Unconvertible(reason)

    return adapter


_AXES = _integers_to_inputs(axes=1)
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

ADAPTERS: dict[tuple[str, int], Adapter] = {
    ("BatchNormalization", 9): _batch_norm_9,
    ("Scan", 9): _refuse("its inputs are numbered in another way from opset 9 on"),
    ("Slice", 10): _integers_to_inputs(starts=1, ends=2, axes=3),
    ("TopK", 10): _top_k,
    ("Clip", 11): _floats_to_inputs(min=1, max=2),
    ("Pad", 11): _pad,
    ("Resize", 11): _resize_11,
    ("Dropout", 12): _dropout,
    ("Hardmax", 13): _softmax,
    ("LogSoftmax", 13): _softmax,
    ("ReduceSum", 13): _AXES,
    ("Resize", 13): _resize_13,
    ("Softmax", 13): _softmax,
    ("Split", 13): _integers_to_inputs(split=1),
    ("Squeeze", 13): _AXES,
    ("Unsqueeze", 13): _AXES,
    ("BatchNormalization", 14): _batch_norm_14,
    ("RoiAlign", 16): _roi_align,
    **{(f"Reduce{kind}", 18): _AXES for kind in _REDUCTIONS},
    ("Split", 18): _split_18,
    ("DFT", 20): _dft,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _refuse("its scale and bias are per channel from opset 21 on"),
    ("Attention", 24): _refuse("it masks, and rounds the softmax, in another way from opset 24 on"),
    ("Attention", 25): _refuse("it masks in another way from opset 25 on"),
}
"""By operator and the version that changed its meaning or its form."""


def complaint(node: ir.Node, reason: str) -> str:
    """One line for the report."""
    return f"{node.op_type} {label_of(node)!r}: {reason}"

"""What x86 without 8-bit dot products makes of uint8 times int8, emulated for whole models.

`vpmaddubsw` multiplies bytes by bytes and adds each two neighbouring products into 16 bits, where the sum
saturates; `vpmaddwd` and `vpaddd` then add those in 32 bits. With `vpdpbusd` (VNNI) nothing saturates. The
zero point of the activation is taken off afterwards, by sums over the columns of the weight, so that what
saturates are products of raw codes.

A model is emulated by spelling out its integer products in standard operators, exact in double precision, so
that ONNX Runtime runs everything else as ever.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.edit import Edit
from onnxq.ir.walk import constant_of, nodes

LOWEST, HIGHEST = -(1 << 15), (1 << 15) - 1


def saturating_product(codes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """uint8 [M, K] times int8 [K, N] as the instruction does it, int32 [M, N]."""
    rows, columns = _even(codes.astype(np.int32), 1), _even(weight.astype(np.int32), 0)
    pairs = rows[:, 0::2, None] * columns[None, 0::2] + rows[:, 1::2, None] * columns[None, 1::2]
    return np.asarray(np.clip(pairs, LOWEST, HIGHEST).sum(axis=1, dtype=np.int32))


def emulated(model: ir.Model, *, saturating: bool) -> ir.Model:
    """`model` with its integer products spelled out.

    Args:
        model: Emitted for an x86 target; not changed.
        saturating: Whether sums of two products are cut to 16 bits.
    """
    copy = ir.from_proto(ir.to_proto(model))
    edit = Edit(copy, "emulated")
    for node in list(nodes(copy)):
        if node.op_type == "MatMulIntegerToFloat":
            _spell_out(node, edit, saturating=saturating)
    return copy


def _even(array: np.ndarray, axis: int) -> np.ndarray:
    """A zero more along an axis of odd length."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, array.shape[axis] % 2)
    return np.pad(array, widths)


def _spell_out(node: ir.Node, edit: Edit, *, saturating: bool) -> None:
    codes, _, row_scale, column_scale, zero, _, bias = (*node.inputs, None)[:7]
    stored, name = constant_of(node.inputs[1]), str(node.outputs[0].name)
    assert stored is not None
    weight = _even(stored.astype(np.float64), 0)

    def constant(array: np.ndarray, what: str) -> ir.Value:
        return edit.constant(array, f"{name}_{what}", near=node)

    def step(op_type: str, inputs: list[ir.Value | None], **attributes: int) -> ir.Value:
        return edit.insert(op_type, inputs, attributes, before=node, names=[f"{name}_{op_type}"])[0]

    def wide(value: ir.Value | None) -> ir.Value:
        return step("Cast", [value], to=int(ir.DataType.DOUBLE))

    last, one = constant(np.array([-1]), "last"), constant(np.array([1 << 60]), "end")
    rows = wide(codes)
    if len(weight) > len(stored):
        pads = constant(np.array([0, 1]), "pads")
        rows = step("Pad", [rows, pads, constant(np.array(0.0), "nothing"), last])
    products = []
    for first in (0, 1):
        start, two = constant(np.array([first]), f"start{first}"), constant(np.array([2]), "two")
        half = step("Unsqueeze", [step("Slice", [rows, start, one, last, two]), last])
        products.append(step("Mul", [half, constant(weight[first::2], f"weight{first}")]))
    pairs = step("Add", products)
    if saturating:
        ends = [constant(np.array(float(end)), f"end{end}") for end in (LOWEST, HIGHEST)]
        pairs = step("Clip", [pairs, *ends])
    total = step("ReduceSum", [pairs, constant(np.array([-2]), "pairs")], keepdims=0)
    offset = step("Mul", [wide(zero), constant(weight.sum(axis=0), "sums")])
    scaled = step("Mul", [step("Sub", [total, offset]), wide(row_scale)])
    scaled = step("Mul", [scaled, wide(column_scale)])
    result = step("Cast", [scaled], to=int(ir.DataType.FLOAT))
    if bias is not None:
        result = step("Add", [result, bias])
    edit.take_over(node.outputs[0], result)

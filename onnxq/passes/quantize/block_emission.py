"""How products with weights in blocks are written down, and embeddings that share their bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.contract import Edit
from onnxq.edit import label_of
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.ir.linear import Linear, find_linear
from onnxq.passes.quantize.block_codes import BlockRange, block_grid, pack_blocks, round_activations
from onnxq.passes.quantize.layer_data import LayerData
from onnxq.passes.quantize.rounding import (
    Codes,
    Grid,
    Rounded,
    damping_for,
    feed_back,
    round_nearest,
)
from onnxq.statistics import SecondMoments

MICROSOFT = "com.microsoft"
_JUDGED = 256
"""Columns on which feedback is judged, at most."""
INT8_ACTIVATIONS = 4
"""The accuracy level with integer kernels. At any other, 8 and 2 bits are dequantized whole at every run."""


@dataclass(frozen=True, eq=False)
class BlockTask:
    """Linears of one weight, and what is to become of them.

    Attributes:
        linears: They share weight and graph; the first one lends its name to the constants.
        tables: Embeddings whose rows are the columns of the weight.
        bits: 2, 4 or 8.
        block: Input channels that share a scale.
        symmetric: No zero points.
        method: How far scales reach.
        feedback: Whether to try feedback, which is kept where it lowers the error of the output.
        data: Their inputs, parted into what is fitted to and what judges, for feedback and for "weighted";
            None where those are not asked for.
        moments: Of all of their inputs.
        damping: Of the feedback, with data without end.
        float_activations: Whether activations are not to be rounded.
    """

    linears: tuple[Linear, ...]
    tables: tuple[Embedding, ...]
    bits: int
    block: int
    symmetric: bool
    method: BlockRange
    feedback: bool
    data: LayerData | None
    moments: SecondMoments | None
    damping: float
    float_activations: bool = False


@dataclass(frozen=True)
class BlockQuantizer:
    """How the kernel rounds activations: 8 bits around zero, one scale for each row and block.

    Attributes:
        block: Channels of a block; 0 where activations are not rounded.
    """

    block: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """`values` [R, K] as the integer product sees them."""
        return round_activations(values, self.block) if self.block else values


@dataclass(frozen=True, eq=False)
class _Packed:
    """The constants of a weight in blocks."""

    weights: ir.Value
    scales: ir.Value
    zeros: ir.Value | None
    zero_points: npt.NDArray[np.uint8] | None


def emit_blocks(task: BlockTask, edit: Edit) -> None:
    """One set of constants for all linears and embeddings of `task`."""
    first = _earliest(task)
    label = label_of(task.linears[0].node)
    weight = task.linears[0].weight
    importance = None if task.moments is None else np.diag(task.moments.gram)
    grid = block_grid(
        weight,
        task.bits,
        task.block,
        symmetric=task.symmetric,
        method=task.method,
        importance=importance,
    )
    codes, remark = _rounded(task, weight, grid)
    if remark:
        edit.remark(task.linears[0].node, remark)
    weights, scales, zeros = pack_blocks(codes, grid)
    packed = _Packed(
        edit.constant(weights, f"{label}_blocks", near=first),
        edit.constant(scales, f"{label}_block_scale", near=first),
        None if zeros is None else edit.constant(zeros, f"{label}_block_zero_point", near=first),
        grid.zero_point,
    )
    for node in [linear.node for linear in task.linears]:
        linear = find_linear(node)  # once more: one linear may feed the next
        assert isinstance(linear, Linear)
        _put(linear, packed, task, edit)
    for node in [table.node for table in task.tables]:
        table = find_embedding(node)
        assert isinstance(table, Embedding)
        _share(table, packed, task, edit)


def _rounded(task: BlockTask, weight: np.ndarray, grid: Grid) -> tuple[Codes, str]:
    """The codes, and what feedback does to the error of the output, whether they are its or the nearest."""
    nearest, data = round_nearest(weight, grid), task.data
    if not task.feedback or data is None or task.moments is None:
        return nearest, ""
    some = slice(None, None, -(-weight.shape[1] // _JUDGED))
    part, own = weight[:, some], grid.of_columns(some)
    tried = _fed_back(task, part, data.moments, own)
    if tried.reason:
        return nearest, f"no feedback: {tried.reason}"
    judge = data.judge(part)
    before, after = judge.error(own.values(nearest[:, some])), judge.error(own.values(tried.codes))
    told = f"feedback: {judge.basis} error {before:.3g} to {after:.3g}"
    if after >= before:
        return nearest, f"no {told}"
    fed = _fed_back(task, weight, task.moments, grid)  # what judged is missed where there is little data
    return (nearest, f"no feedback: {fed.reason}") if fed.reason else (fed.codes, told)


def _fed_back(task: BlockTask, weight: np.ndarray, moments: SecondMoments, grid: Grid) -> Rounded:
    damping = damping_for(len(weight), moments.count, task.damping)
    return feed_back(weight, moments.gram, grid, damping=damping)


def _earliest(task: BlockTask) -> ir.Node:
    """The first node that will read the constants, which inside a function are nodes in front of it."""
    readers = {*(linear.node for linear in task.linears), *(table.node for table in task.tables)}
    graph = task.linears[0].node.graph
    return next(node for node in graph or () if node in readers)


def _put(linear: Linear, packed: _Packed, task: BlockTask, edit: Edit) -> None:
    node, label = linear.node, label_of(linear.node)
    bias = None
    if linear.bias is not None:
        bias = edit.constant(linear.bias.astype(np.float32), f"{label}_bias", near=node)
    inputs = [linear.activation, packed.weights, packed.scales, packed.zeros, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    attributes = {
        "K": linear.channels,
        "N": linear.columns,
        "bits": task.bits,
        "block_size": task.block,
        "accuracy_level": None if task.float_activations else INT8_ACTIVATIONS,
    }
    (product,) = edit.insert(
        "MatMulNBits", inputs, attributes, domain=MICROSOFT, before=node, names=[f"{label}_product"]
    )
    edit.take_over(linear.output, product)


def gather_rows(
    table: Embedding, codes: ir.Value, scales: ir.Value, zeros: ir.Value | None, bits: int, edit: Edit
) -> None:
    """Let an embedding pick rows of a packed table and dequantize these alone.

    Args:
        table: The embedding; its indices have a known rank.
        codes: [rows, blocks, block * bits / 8], as `pack_blocks` gives them; the blocks fill a row up.
        scales: [rows, blocks, 1].
        zeros: As `scales`, one byte each; None for codes around ``2**(bits - 1)``.
        bits: 8, 4 or 2.
        edit: The edit that records the change.
    """
    node, label = table.node, label_of(table.node)
    assert scales.shape is not None and table.indices.shape is not None
    blocks = int(scales.shape.numpy()[1])
    attributes = {
        "bits": bits,
        "block_size": table.channels // blocks,
        "gather_axis": 0,
        "quantize_axis": 2,
    }
    inputs = [codes, table.indices, scales] + ([zeros] if zeros is not None else [])
    (picked,) = edit.insert(
        "GatherBlockQuantized",
        inputs,
        attributes,
        domain=MICROSOFT,
        before=node,
        names=[f"{label}_row_blocks"],
    )
    kept = [0] * len(table.indices.shape)
    whole = edit.constant(np.array([*kept, table.channels], np.int64), f"{label}_row_shape", near=node)
    (rows,) = edit.insert("Reshape", [picked, whole], before=node, names=[f"{label}_rows"], like=table.output)
    edit.take_over(table.output, rows)


def _share(table: Embedding, packed: _Packed, task: BlockTask, edit: Edit) -> None:
    """Let an embedding read what the linears read.

    GatherBlockQuantized wants scales of as many axes as codes; turning them over here keeps one copy of them
    in the file, and the runtime does it once, when it loads. Its own zero points are not packed along blocks,
    so they are stored once more, being few.
    """
    node, label = table.node, label_of(table.node)
    shape = [table.rows, table.channels // task.block, 1]
    apart = edit.constant(np.array(shape, np.int64), f"{label}_scale_shape", near=node)
    (scales,) = edit.insert("Reshape", [packed.scales, apart], before=node, names=[f"{label}_scales"])
    scales.shape, scales.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    zeros = None
    if packed.zero_points is not None:
        apiece = packed.zero_points.T.reshape(shape).astype(np.uint8)
        zeros = edit.constant(apiece, f"{label}_zero_points", near=node)
    gather_rows(table, packed.weights, scales, zeros, task.bits, edit)

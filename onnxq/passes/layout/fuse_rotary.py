"""x · cos + concat(-x[half:], x[:half]) · sin  =>  RotaryEmbedding(x)  (com.microsoft)

Fires on rotary positions spelled out, in float32, of a tensor [B, H, S, D] whose angles [B, S, D/2] are
computed in the graph. The operator wants tables of cosines and sines and the rows that it shall take; here
the tables have one row for each token of the call, in order, computed once for all layers, so that any
positions a caller may give mean the same as before. Seven passes over the tensor become one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.repeat import same_sizes
from onnxq.ir.rotary import Rotary, find_rotary
from onnxq.ir.walk import is_op, is_scalar_close, last_dim, rank_of
from onnxq.passes.decoder_evidence import rotary_examples


@dataclass(frozen=True)
class FuseRotary(Pass):
    """Spelled-out rotary positions => ONNX Runtime's operator."""

    name: ClassVar[str] = "fuse-rotary"
    contract: ClassVar[Contract] = Contract.REASSOCIATES
    needs: ClassVar[Needs] = Needs(opset=13)

    def match(self, node: ir.Node, context: Context) -> Rotary | Reject | None:
        """The rotary positions that end at the Add `node`."""
        found = find_rotary(node)
        if not isinstance(found, Rotary):
            return found
        if found.input.dtype is not ir.DataType.FLOAT or found.angles.dtype is not ir.DataType.FLOAT:
            return Reject("it is not known to compute in float32", label_of(node))
        if rank_of(found.input) != 4 or rank_of(found.angles) != 3:
            return Reject("it has other axes than samples, heads, tokens, channels", label_of(node))
        if not same_sizes(found.input, found.angles, ((0, 0), (2, 1))):
            return Reject("samples may share positions", label_of(node))
        return found

    def rewrite(self, found: Rotary, edit: Edit) -> None:
        """Make tables, or take those that another layer's rewrite made, and turn."""
        node = found.output.producer()
        assert node is not None
        cosines = _table(edit, found, "Cos", found.cosine_factor)
        sines = _table(edit, found, "Sin", found.sine_factor)
        name = str(found.output.name)
        (turned,) = edit.insert(
            "RotaryEmbedding",
            [found.input, _rows(edit, found), cosines, sines],
            before=node,
            names=[f"{name}_rotary"],
            domain="com.microsoft",
            like=found.output,
        )
        edit.take_over(found.output, turned)

    @classmethod
    def examples(cls) -> Examples:
        """Both orders of the terms, a factor on the waves; unlike halves, shared positions, other types."""
        return rotary_examples()


def _table(edit: Edit, found: Rotary, function: str, factor: float) -> ir.Value:
    """Cosines or sines of the angles, [B·S, D/2]."""
    before, name = found.joined, f"{found.angles.name}_{function.lower()}"
    half = last_dim(found.angles) or -1
    for wave in _made(found.angles, function, before):
        scaled = wave if factor == 1.0 else _scaled(wave, factor, before)
        for table in _made(scaled, "Reshape", before):
            return table
    (wave,) = edit.insert(function, [found.angles], before=before, names=[name])
    if factor != 1.0:
        scale = edit.constant(np.array(factor, np.float32), f"{name}_factor", near=before)
        (wave,) = edit.insert("Mul", [wave, scale], before=before, names=[f"{name}_scaled"])
    target = edit.constant(np.array([-1, half]), f"{name}_shape", near=before)
    return edit.insert("Reshape", [wave, target], before=before, names=[f"{name}_table"])[0]


def _scaled(wave: ir.Value, factor: float, near: ir.Node) -> ir.Value | None:
    made = (each for each in _made(wave, "Mul", near))
    return next((each for each in made if _is_scaled(each, factor)), None)


def _is_scaled(value: ir.Value, factor: float) -> bool:
    node = value.producer()
    return node is not None and is_scalar_close(node.inputs[1], factor)


def _rows(edit: Edit, found: Rotary) -> ir.Value:
    """The row of the tables for each token: 0, 1, 2 ... as [B, S]."""
    before, name = found.joined, f"{found.angles.name}_rows"
    for shape in _made(found.angles, "Shape", before):
        for sizes in _made(shape, "Slice", before):
            for rows in _made(sizes, "Reshape", before):
                return rows
    zero, one, two = (edit.constant(np.array([each]), f"{name}_{each}", near=before) for each in range(3))
    start, step = (edit.constant(np.array(each), f"{name}_by_{each}", near=before) for each in range(2))
    (shape,) = edit.insert("Shape", [found.angles], before=before, names=[f"{name}_shape"])
    (sizes,) = edit.insert("Slice", [shape, zero, two, zero, one], before=before, names=[f"{name}_sizes"])
    (count,) = edit.insert("ReduceProd", [sizes], {"keepdims": 0}, before=before, names=[f"{name}_count"])
    (each,) = edit.insert("Range", [start, count, step], before=before, names=[f"{name}_each"])
    return edit.insert("Reshape", [each, sizes], before=before, names=[name])[0]


def _made(value: ir.Value | None, op_type: str, near: ir.Node) -> Iterator[ir.Value]:
    """What this pass computed from `value` for another layer of the same graph, by one such operator."""
    for node, _ in value.uses() if value is not None else ():
        ours = node.metadata_props.get("onnxq.pass") == FuseRotary.name
        if ours and is_op(node, op_type) and node.graph is near.graph:
            yield node.outputs[0]

"""codes(x f), scale(x f)  =>  codes(x), f scale(x)   f = Cast(bool), one for each row

Fires on rows that are multiplied by 0 or 1 and then rounded, with a scale found for each of them, for integer
products. A row's codes stay what they are when it is multiplied by 1, and do not matter where its scale is 0,
so the factor goes to the scale, which has one number where the row has hundreds. In attention that is the
guard of queries that see no key (`fuse-attention`): a pass over all channels in every layer.

The same bits for finite rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.walk import cast_type, constant_of, input_of, is_op, producer
from onnxq.passes.layout.evidence import row_factor_examples

PRODUCT = "MatMulIntegerToFloat"
_CODES, _SCALE, _ZERO, _BIAS = 0, 2, 4, 6
_ENDS = ("ReduceMax", "ReduceMin")


@dataclass(frozen=True, eq=False)
class RowFactor:
    """Rows that are multiplied by a factor each, and rounded.

    Attributes:
        multiply: The Mul.
        rows: What it multiplies.
        factor: What by.
        scale: What the rows' codes stand for, one number a row.
        products: The integer products that read the codes and the scale.
    """

    multiply: ir.Node
    rows: ir.Value
    factor: ir.Value
    scale: ir.Value
    products: tuple[ir.Node, ...]


@dataclass(frozen=True)
class FoldRowFactor(Pass):
    """A factor of 0 or 1 on rows with scales of their own => on the scales."""

    name: ClassVar[str] = "fold-row-factor"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> RowFactor | Reject | None:
        """The Mul of rows by what was a truth value, in front of their rounding."""
        if not is_op(node, "Mul"):
            return None
        factor = next((value for value in node.inputs if _is_truth(value)), None)
        rows = next((value for value in node.inputs if value is not factor), None)
        rounding = _rounding_of(node.outputs[0])
        if factor is None or rows is None or rounding is None:
            return None
        scale, quantize = rounding
        if not _is_one_a_row(factor, rows, node.outputs[0]):
            return Reject("it is not known to be one factor for each row", label_of(node))
        if node.outputs[0].is_graph_output() or len(node.outputs[0].uses()) != len(_ENDS) + 1:
            return Reject("something else than the rounding reads what is multiplied", label_of(node))
        products = tuple(user for user, _ in quantize.outputs[0].uses())
        if not all(_reads(product, quantize, scale) for product in products):
            return Reject("something else than products without a bias reads the codes", label_of(node))
        others = {user for user, _ in scale.uses() if not is_op(user, "Reciprocal")}
        if scale.is_graph_output() or others != set(products):
            return Reject("something else than those products reads the scales", label_of(node))
        return RowFactor(node, rows, factor, scale, products)

    def rewrite(self, found: RowFactor, edit: Edit) -> None:
        """Round the rows as they are, and multiply their scales."""
        inverse = next(user for user, _ in found.scale.uses() if is_op(user, "Reciprocal"))
        name = str(found.scale.name)
        (scale,) = edit.insert(
            "Mul", [found.scale, found.factor], before=inverse, names=[f"{name}_seen"], like=found.scale
        )
        for product in found.products:
            edit.rewire(product, _SCALE, scale)
        edit.replace(found.multiply.outputs[0], found.rows)
        edit.remove_unused(found.multiply)

    @classmethod
    def examples(cls) -> Examples:
        """Factors of rows in front of their rounding; other factors, and what somebody else reads."""
        return row_factor_examples()


def _is_truth(value: ir.Value | None) -> bool:
    """Whether `value` is 0 or 1 everywhere, whatever it was reshaped to since."""
    node = producer(value)
    while is_op(node, "Squeeze", "Unsqueeze", "Reshape", "Identity") and node is not None:
        node = producer(node.inputs[0])
    source = node.inputs[0] if node is not None and is_op(node, "Cast") else None
    return source is not None and node is not None and source.dtype == ir.DataType.BOOL and _is_float(node)


def _is_float(cast: ir.Node) -> bool:
    return cast_type(cast) == ir.DataType.FLOAT


def _is_one_a_row(factor: ir.Value, rows: ir.Value, product: ir.Value) -> bool:
    """Whether `factor` has one number for each row and adds no rows."""
    if factor.shape is None or rows.shape is None or product.shape is None or len(factor.shape) == 0:
        return False
    return factor.shape[-1] == 1 and rows.shape == product.shape and len(factor.shape) <= len(rows.shape)


def _rounding_of(value: ir.Value) -> tuple[ir.Value, ir.Node] | None:
    """The scale of each row of `value`, and the QuantizeLinear of the rows divided by it."""
    for user, index in value.uses():
        inverse = producer(user.inputs[1 - index], "Reciprocal") if is_op(user, "Mul") else None
        scale = inverse.inputs[0] if inverse is not None else None
        readers = [reader for reader, _ in user.outputs[0].uses()]
        if scale is None or len(readers) != 1 or user.outputs[0].is_graph_output():
            continue
        if is_op(readers[0], "QuantizeLinear") and _spans(scale, value):
            return scale, readers[0]
    return None


def _spans(scale: ir.Value, rows: ir.Value) -> bool:
    """Whether `scale` is computed from the extremes of `rows`, and from nothing else that is no constant."""
    ends, front = set(), [scale]
    while front:
        value = front.pop()
        node = value.producer()
        if constant_of(value) is not None:
            continue
        if is_op(node, *_ENDS) and node is not None and node.inputs[0] is rows:
            ends.add(node.op_type)
        elif node is not None and is_op(node, "Mul", "Max", "Neg"):
            front += [each for each in node.inputs if each is not None]
        else:
            return False
    return ends == set(_ENDS)


def _reads(product: ir.Node, quantize: ir.Node, scale: ir.Value) -> bool:
    """Whether `product` takes the codes with their own zero point and scale, and has no bias to scale."""
    if product.op_type != PRODUCT or product.inputs[_CODES] is not quantize.outputs[0]:
        return False
    zero, own = constant_of(input_of(product, _ZERO)), constant_of(input_of(quantize, 2))
    same = zero is not None and own is not None and zero.size == own.size == 1 and zero.item() == own.item()
    return same and product.inputs[_SCALE] is scale and input_of(product, _BIAS) is None

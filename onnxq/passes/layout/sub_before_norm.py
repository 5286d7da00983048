"""Sum(x @ W + b, r) -> norm  =>  Sub(r, x @ (-W) + (-b)) -> norm

Fires on the residual addition in front of a layer norm or RMS norm, spelled as a Sum, that adds the results
of linears, quantized or not, which nothing else reads. ONNX Runtime fuses an Add in front of a norm into a
scalar kernel and computes a Sum on one thread, which also leaves the norm's input in one core's cache; it
does neither to a Sub.

Changing the sign of a weight changes the sign of its product and nothing else, so the bits stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Pass, Reject
from onnxq.ir.linear import Linear, find_linear, linear_giving, rewrite_linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import constant_of, constant_shape, input_of, producer
from onnxq.passes.residual_evidence import sub_examples

PRODUCT = "MatMulIntegerToFloat"
_CODES, _BIAS = 1, 6


@dataclass(frozen=True, eq=False)
class Residual:
    """A Sum in front of a norm: what stays, and what is subtracted from it in turn."""

    total: ir.Node
    kept: ir.Value
    negated: tuple[ir.Value, ...]


@dataclass(frozen=True)
class SubBeforeNorm(Pass):
    """Residual Sum in front of a norm => Sub of negated linears, which runs on all threads."""

    name: ClassVar[str] = "sub-before-norm"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node: ir.Node, context: Context) -> Residual | Reject | None:
        """The Sum that a norm ending at `node` reads."""
        norm = find_norm(node)
        if not isinstance(norm, Norm):
            return norm
        total = producer(norm.input, "Sum")
        given = [value for value in total.inputs if value is not None] if total is not None else []
        label = str(norm.output.name)
        if total is None or len(given) < 2:
            return Reject("no Sum gives what it normalises", label)
        if len(set(given)) < len(given):
            return Reject("the Sum adds a value to itself", label)
        for kept in given[1::-1]:  # the order of additions stays, but two may change places
            others = tuple(value for value in given if value is not kept)
            if all(_is_negatable(value, total) for value in others):
                return Residual(total, kept, others)
        return Reject("the Sum adds something whose sign cannot be changed", label)

    def rewrite(self, found: Residual, edit: Edit) -> None:
        """Negate the linears, and subtract them."""
        output = found.total.outputs[0]
        name = str(output.name)
        left = found.kept
        for value in found.negated:
            negative = _negate(value, edit)
            names = [f"{name}_difference"]
            (left,) = edit.insert("Sub", [left, negative], before=found.total, names=names, like=output)
        edit.take_over(output, left)

    @classmethod
    def examples(cls) -> Examples:
        """Residuals of linears in front of norms; of other things, or read elsewhere."""
        return sub_examples()


def _is_negatable(value: ir.Value, total: ir.Node) -> bool:
    """Whether the sign of `value`, which `total` alone reads, can be changed in what computes it."""
    users = [node for node, _ in value.uses()]
    if users != [total] or value.is_graph_output():
        return False
    product = _product_of(value)
    if product is not None:
        return _is_negatable_product(product, value)
    linear = linear_giving(value)
    return linear is not None and linear.node.graph is total.graph


def _product_of(value: ir.Value) -> ir.Node | None:
    """The integer product that gives `value`, with or without a constant added behind it."""
    node = value.producer()
    if node is not None and node.op_type == "Add" and node.domain == "" and _added(node) is not None:
        inner = node.inputs[1 - (_added(node) or 0)]
        node = inner.producer() if inner is not None else None
    return node if node is not None and node.op_type == PRODUCT else None


def _added(add: ir.Node) -> int | None:
    """Which input of an Add is constant; None unless one is."""
    found = [index for index, given in enumerate(add.inputs) if constant_shape(given) is not None]
    return found[0] if len(found) == 1 else None


def _is_negatable_product(product: ir.Node, value: ir.Value) -> bool:
    out = product.outputs[0]
    if out is not value and (len(out.uses()) != 1 or out.is_graph_output()):
        return False
    codes, zero = constant_of(input_of(product, _CODES)), input_of(product, 5)
    if codes is None or codes.dtype != np.int8 or codes.min(initial=0) == np.iinfo(np.int8).min:
        return False
    zeros = constant_of(zero) if zero is not None else np.zeros(1)
    bias = input_of(product, _BIAS)
    return zeros is not None and not np.any(zeros) and (bias is None or constant_shape(bias) is not None)


def _negate(value: ir.Value, edit: Edit) -> ir.Value:
    """Change the sign of `value`; the value that holds it now, under another name."""
    product = _product_of(value)
    if product is None:
        linear = linear_giving(value)
        assert linear is not None
        bias = linear.bias
        rewrite_linear(linear, edit, -linear.weight, None if bias is None else -bias)
        again = find_linear(linear.node)
        assert isinstance(again, Linear)
        value = again.output
    else:
        _negate_constant(product, _CODES, edit)
        if input_of(product, _BIAS) is not None:
            _negate_constant(product, _BIAS, edit)
        add = value.producer()
        if add is not None and add is not product:
            _negate_constant(add, _added(add) or 0, edit)
    edit.rename(value, f"{value.name}_negative")
    return value


def _negate_constant(node: ir.Node, index: int, edit: Edit) -> None:
    array = constant_of(node.inputs[index])
    assert array is not None
    edit.replace_constant(node, index, -array)

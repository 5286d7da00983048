"""MatMul(a, b)  =>  MatMul(DQ(Q(a)), DQ(Q(b))), both computed

Fires on products of two activations, which in a transformer are those of attention: queries by keys, and
the softmax by values. Their operands get one scale each, the second one int8 around 0, the first one too
unless it has no negative numbers and the runtime takes uint8.

It is for runtimes that compile the graph and multiply integers there as everywhere (OpenVINO, TensorRT). ONNX
Runtime's CPU provider would repack the second operand at every run; its targets leave these products float.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.labels import is_named
from onnxq.ir.walk import constant_of, is_op, nodes, producer
from onnxq.passes.quantize.known import bounds_of
from onnxq.passes.quantize.ranges import QuantParams, params_for
from onnxq.passes.quantize_evidence import product_examples
from onnxq.statistics import Statistic, Statistics


@dataclass(frozen=True, eq=False)
class Operands:
    """A product and how its operands are rounded.

    Attributes:
        node: The MatMul.
        params: Of either operand.
    """

    node: ir.Node
    params: tuple[QuantParams, QuantParams]


@dataclass(frozen=True)
class QuantizeProducts(Pass):
    """Float product of two activations => product of rounded ones.

    Attributes:
        signed: Whether a first operand without negative numbers is int8 as well.
        margin: Part by which ranges are widened.
        skip: Names of products that stay float; ``*`` stands for any text.
    """

    signed: bool = False
    margin: float = 0.0
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize-products"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}), opset=13)

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """Both operands of every product of activations."""
        found = (node for node in nodes(model) if _multiplies_activations(node))
        return [value for node in found for value in node.inputs if value is not None]

    def match(self, node: ir.Node, context: Context) -> Operands | Reject | None:
        """A product of two computed tensors, and the ranges of both."""
        if not _multiplies_activations(node):
            return None
        label = label_of(node)
        if is_named(label, self.skip):
            return Reject("told to stay float", label)
        params = tuple(
            self._params(value, context.statistics, first=place == 0)
            for place, value in enumerate(node.inputs)
            if value is not None
        )
        if None in params:
            return Reject("calibration has no statistics of an operand, or it is not float32", label)
        return Operands(node, (params[0], params[1]))  # type: ignore[arg-type]

    def rewrite(self, found: Operands, edit: Edit) -> None:
        """Round both operands."""
        node = found.node
        for place, params in enumerate(found.params):
            value = node.inputs[place]
            assert value is not None
            scale = edit.constant(np.asarray(params.scale), f"{value.name}_scale", near=node)
            zero = edit.constant(np.asarray(params.zero_point), f"{value.name}_zero_point", near=node)
            (codes,) = edit.insert(
                "QuantizeLinear", [value, scale, zero], before=node, names=[f"{value.name}_quantized"]
            )
            (rounded,) = edit.insert(
                "DequantizeLinear",
                [codes, scale, zero],
                before=node,
                names=[f"{value.name}_dequantized"],
                like=value,
            )
            edit.rewire(node, place, rounded)

    def _params(self, value: ir.Value, statistics: Statistics, *, first: bool) -> QuantParams | None:
        seen = statistics.get(str(value.name))
        if value.dtype not in (None, ir.DataType.FLOAT):
            return None
        if (bounds := bounds_of(value)) is None:
            if seen is None or not (math.isfinite(seen.low) and math.isfinite(seen.high)):
                return None
            bounds = seen.low * (1 + self.margin), seen.high * (1 + self.margin)
        unsigned = first and not self.signed and bounds[0] >= 0
        return params_for(*bounds, symmetric=not unsigned)

    @classmethod
    def examples(cls) -> Examples:
        """Products of two activations; of one, of half precision, and unseen ones."""
        return product_examples()


def _multiplies_activations(node: ir.Node) -> bool:
    if not is_op(node, "MatMul") or len(node.inputs) != 2:
        return False
    if any(producer(value, "DequantizeLinear") is not None for value in node.inputs):
        return False  # a linear, or a product that was here before
    return all(value is not None and constant_of(value) is None for value in node.inputs)

"""x -> linear(W, b)  =>  QuantizeLinear(x) -> MatMulIntegerToFloat(., int8 W, b)

Fires on a linear whose input calibration has seen. Activations become uint8, asymmetric, one scale for the
tensor (or one for each token, measured while the model runs); weights int8, symmetric, one scale for each
column. Everything else stays float: ONNX Runtime has no faster integer kernels for it.

`form="kernel"` names the product onnxq wants of ONNX Runtime; `form="qdq"` writes the same numbers as plain
QuantizeLinear and DequantizeLinear for other runtimes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.emission import emit_kernel, emit_per_token, emit_qdq
from onnxq.passes.quantize.evidence import linear_examples
from onnxq.passes.quantize.ranges import QuantParams, RangeMethod, choose_range, params_for
from onnxq.statistics import Statistic

Form = Literal["kernel", "qdq"]
Found = tuple[Linear, QuantParams | None]


@dataclass(frozen=True)
class QuantizeLinears(Pass):
    """Float linear => integer product with float output.

    Attributes:
        form: "kernel" for ONNX Runtime's own product, "qdq" for plain Q/DQ.
        method: How activation ranges are chosen: "minmax", "percentile" or "mse".
        percentile: For that method, in percent.
        margin: Part by which ranges are widened, for data that reaches further than the calibration's.
        weight_bits: 8, or 7 for x86 processors without VNNI.
        least: Fewest input channels and fewest output columns that are worth an integer product.
        skip: Names of linears that stay float; one without a name goes by that of its product.
        per_token: Names of linears whose input gets one scale for each token, at run time ("kernel" only).
    """

    form: Form = "kernel"
    method: RangeMethod = "minmax"
    percentile: float = 99.99
    margin: float = 0.0
    weight_bits: int = 8
    least: int = 16
    skip: tuple[str, ...] = ()
    per_token: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize-linears"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.HISTOGRAM}), opset=13)

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears that will be quantized with a fixed range."""
        found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
        return [
            linear.activation
            for linear in found
            if label_of(linear.node) not in (*self.skip, *self.per_token)
        ]

    def match(self, node: ir.Node, context: Context) -> Found | Reject | None:
        """A linear, and the parameters of its input (None: one scale for each token)."""
        linear = find_linear(node)
        if linear is None or isinstance(linear, Reject):
            return linear
        if reason := self._obstacle(linear):
            return Reject(reason, label_of(node))
        if label_of(node) in self.per_token:
            return linear, None
        seen = context.statistics.get(str(linear.activation.name))
        if seen is None or not math.isfinite(seen.low):
            return Reject("calibration has no statistics of its input", label_of(node))
        return linear, params_for(*choose_range(seen, self.method, self.percentile, self.margin))

    def rewrite(self, found: Found, edit: Edit) -> None:
        """Put the integer product in the linear's place."""
        linear, params = found
        if params is None:
            emit_per_token(linear, edit, self.weight_bits)
        elif self.form == "kernel":
            emit_kernel(linear, params, edit, self.weight_bits)
        else:
            emit_qdq(linear, params, edit, self.weight_bits)

    def _obstacle(self, linear: Linear) -> str:
        if label_of(linear.node) in self.skip:
            return "told to stay float"
        if linear.dtype.name != "float32":
            return f"it computes in {linear.dtype.name}, and the integer product gives float32"
        if min(linear.channels, linear.columns) < self.least:
            return f"{linear.channels} x {linear.columns} is too small to pay"
        if label_of(linear.node) in self.per_token and self.form == "qdq":
            return "plain Q/DQ has no scale per token"
        return ""

    @classmethod
    def examples(cls) -> Examples:
        """MatMul, MatMul and Add, Gemm; linears that are unseen, small, or not float32."""
        return linear_examples()

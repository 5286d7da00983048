"""x -> linear(W, b)  =>  QuantizeLinear(x) -> MatMulIntegerToFloat(., int8 W, b)

Fires on a linear whose input calibration has seen. Activations become uint8, asymmetric, one scale for the
tensor (or one for each token, measured while the model runs); weights int8, symmetric, one scale for each
column. Everything else stays float: ONNX Runtime has no faster integer kernels for it.

`form="kernel"` names the product onnxq wants of ONNX Runtime; `form="qdq"` writes the same numbers as plain
QuantizeLinear and DequantizeLinear for other runtimes. Fewer bits than 8 run in the same kernels: they show
what a processor with narrower ones would lose, and leave room in 16-bit sums.

How a range is chosen is in `ranges` (what the graph alone knows of one: `known`), how a weight is rounded in
`fitting`.

A linear whose weight is an embedding's table as well shares the codes with it in the kernel form (`tied`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.errors import UsageProblem
from onnxq.ir.channels import live_channels
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.mixing import MIXES, only_mixes
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.activation_emission import params_of
from onnxq.passes.quantize.emission import (
    QuantizedLinear,
    emit_kernel,
    emit_per_token,
    emit_qdq,
    scale_for_bias,
)
from onnxq.passes.quantize.evidence import linear_examples
from onnxq.passes.quantize.fitting import Fit, Rounding, fit_layer
from onnxq.passes.quantize.known import bounds_of
from onnxq.passes.quantize.ranges import (
    PerToken,
    QuantParams,
    RangeMethod,
    choose_range,
    params_for,
)
from onnxq.passes.quantize.tied import tables_of
from onnxq.passes.quantize.weights import WeightRange
from onnxq.statistics import Statistic, TensorStatistics

Form = Literal["kernel", "qdq"]
_READ_BY: Mapping[str, Statistic] = {
    "average": Statistic.AVERAGE_EXTREMES,
    "percentile": Statistic.HISTOGRAM,
    "mse": Statistic.HISTOGRAM,
    "token": Statistic.TOKEN_EXTREMES,
    "level": Statistic.SAMPLE_EXTREMES,
}
"""What range methods read besides the extremes of channels."""


@dataclass(frozen=True, eq=False)
class Quantizable:
    """A linear, how its input is rounded, and what calibration knows of that.

    Attributes:
        linear: What was found.
        quantizer: Fixed parameters, or a scale for each token.
        seen: Statistics of its input, if there are any.
    """

    linear: Linear
    quantizer: QuantParams | PerToken
    seen: TensorStatistics | None


@dataclass(frozen=True)
class QuantizeLinears(Pass):
    """Float linear => integer product with float output.

    Attributes:
        form: "kernel" for ONNX Runtime's own product, "qdq" for plain Q/DQ.
        method: How activation ranges are chosen: "minmax", "average" (over samples), "percentile", "mse",
            "token" (cut as far as a share of the tokens reaches) or "level" (as far as one sample in
            hundred will reach).
        percentile: For "percentile" and "token", in percent.
        margin: Part by which ranges are widened, for data that reaches further than the calibration's.
        ranges: Activations whose range is given: name, low, high.
        weight_bits: 2 to 8; 7 for x86 processors without VNNI.
        activation_bits: 2 to 8.
        activation: "asymmetric" codes (uint8), the same "signed" (int8, of 8 bits alone), or "symmetric" ones
            (int8 around 0).
        weight_range: "minmax", or "mse" to cut the range of a column where that lowers its error.
        rounding: Of weights: "nearest"; "feedback", each error made up for by what is rounded later; "drop",
            the same for a weight that already makes up for activations that are rounded now and then.
        correct_weight: Whether weights make up for the rounding of activations whatever the rounding.
        rank: Rank of that correction at most; 0 for any.
        correct_bias: Whether biases make outputs right on average; by token, those that exist.
        probability: For "drop": how often an element of the activation is rounded.
        least: Fewest input channels and fewest output columns that are worth an integer product.
        only: Names of the only linears to look at; all if there are none.
        skip: Names of linears that stay float; one without a name goes by that of its product.
        per_token: Names of linears whose input gets one scale for each token, at run time ("kernel" only).
        float_bias: Whether biases of "qdq" stay float where ONNX Runtime would want them as int32.
        float_tables: Names of embeddings that stay float although they share the table of a linear ("kernel"
            only: in "qdq" all do); ``*`` stands for any text.
    """

    form: Form = "kernel"
    method: RangeMethod = "minmax"
    percentile: float = 99.99
    margin: float = 0.0
    ranges: tuple[tuple[str, float, float], ...] = ()
    weight_bits: int = 8
    activation_bits: int = 8
    activation: Literal["asymmetric", "signed", "symmetric"] = "asymmetric"
    weight_range: WeightRange = "minmax"
    rounding: Rounding = "nearest"
    correct_weight: bool = False
    rank: int = 0
    correct_bias: bool = False
    probability: float = 0.5
    least: int = 16
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    per_token: tuple[str, ...] = ()
    float_bias: bool = False
    float_tables: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize-linears"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}), opset=13)

    def __post_init__(self) -> None:
        limits = {
            "weight_bits": (2, 8),
            "activation_bits": (2, 8),
            "probability": (0, 1),
            "percentile": (50, 100),
        }
        for name, (least, most) in limits.items():
            if not least <= (given := getattr(self, name)) <= most:
                raise UsageProblem(
                    f"quantize-linears: {name} is {given}",
                    hint=f"It has to be between {least} and {most}.",
                    slug="bad-setting",
                )

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """The inputs of all linears that will be quantized."""
        return [linear.activation for linear in self._linears(model)]

    def wanted(self, model: ir.Model) -> Mapping[Statistic, Iterable[ir.Value]]:
        """Extremes of inputs with a fixed range, what the method reads; for fitting, moments and rows."""
        linears = list(self._linears(model))
        static = [each.activation for each in linears if label_of(each.node) not in self.per_token]
        asked: dict[Statistic, Iterable[ir.Value]] = {Statistic.CHANNEL_EXTREMES: static}
        if self.method in _READ_BY:
            asked[_READ_BY[self.method]] = static
        if self._fit.reads_activations:
            everything = [each.activation for each in linears]
            asked |= {Statistic.SECOND_MOMENTS: everything, Statistic.ROWS: everything}
        return asked

    def match(self, node: ir.Node, context: Context) -> Quantizable | Reject | None:
        """A linear, and how its input is rounded."""
        linear = find_linear(node)
        if linear is None or isinstance(linear, Reject):
            return linear
        if reason := self._obstacle(linear):
            return Reject(reason, label_of(node))
        seen = context.statistics.get(str(linear.activation.name))
        if label_of(node) in self.per_token:
            return Quantizable(linear, PerToken(self.activation_bits, self.activation == "signed"), seen)
        params = self._params(linear, seen)
        if params is None:
            return Reject("calibration has no statistics of its input", label_of(node))
        return Quantizable(linear, params, seen)

    def rewrite(self, found: Quantizable, edit: Edit) -> None:
        """Put the integer product in the linear's place."""
        linear, how = found.linear, found.quantizer
        qdq, fit = self.form == "qdq", self._fit
        least_scale: np.ndarray | float = 0.0
        if qdq and not self.float_bias and isinstance(how, QuantParams):
            least_scale = scale_for_bias(linear.bias, how)
        if linear.bias is None and isinstance(how, PerToken):
            fit = replace(fit, correct_bias=False)  # there it would take a pass over the output
        fitted = fit_layer(linear.weight, linear.bias, how, found.seen, fit, least_scale=least_scale)
        if fitted.remark:
            edit.remark(linear.node, fitted.remark)
        tables = () if qdq else tables_of(linear, self.float_tables)
        layer = QuantizedLinear(linear, fitted.weight, fitted.bias, tables)
        if isinstance(how, PerToken):
            emit_per_token(layer, how, edit)
        elif qdq:
            emit_qdq(layer, how, edit, float_bias=self.float_bias)
        else:
            emit_kernel(layer, how, edit)

    @property
    def _fit(self) -> Fit:
        return Fit(
            bits=self.weight_bits,
            weight_range=self.weight_range,
            rounding=self.rounding,
            correct_weight=self.correct_weight,
            rank=self.rank,
            correct_bias=self.correct_bias,
            probability=self.probability,
        )

    def _linears(self, model: ir.Model) -> Iterator[Linear]:
        """Linears that the options do not keep in float."""
        for node in nodes(model):
            linear = find_linear(node)
            if isinstance(linear, Linear) and not self._obstacle(linear):
                yield linear

    def _params(self, linear: Linear, seen: TensorStatistics | None) -> QuantParams | None:
        """The parameters of a linear's input: those that another linear gave it already, if they serve."""
        found = self._range(linear, seen)
        if found is None:
            return None
        given = params_of(linear.activation, self.activation_bits, self.name)
        own = params_for(
            *found,
            self.activation_bits,
            symmetric=self.activation == "symmetric",
            signed=self.activation == "signed",
        )
        serve = (each for each in given if each.signed == own.signed and each.holds(own.low, own.high))
        return next(serve, own)

    def _range(self, linear: Linear, seen: TensorStatistics | None) -> tuple[float, float] | None:
        for name, low, high in self.ranges:
            if name == linear.activation.name:
                return low, high
        if (bounds := bounds_of(linear.activation)) is not None:
            return bounds
        if seen is None or not math.isfinite(seen.low):
            return None
        return choose_range(
            seen,
            self.method,
            self.percentile,
            self.margin,
            live=self._live(linear),
            bits=self.activation_bits,
            symmetric=self.activation == "symmetric",
        )

    def _live(self, linear: Linear) -> np.ndarray | None:
        """Channels that matter to the integer products with a fixed range that read the same input."""
        users = (user for user, index in linear.activation.uses() if index == 0)
        readers = (found for user in users if isinstance(found := find_linear(user), Linear))
        fixed = [
            each for each in readers if not self._obstacle(each) and label_of(each.node) not in self.per_token
        ]
        return live_channels(each.weight for each in fixed) if fixed else None

    def _obstacle(self, linear: Linear) -> str:
        name = label_of(linear.node)
        if name in self.skip:
            return "told to stay float"
        if only_mixes(linear):
            return MIXES
        if self.only and name not in self.only:
            return "not among those to look at"
        if linear.dtype.name != "float32":
            return f"it computes in {linear.dtype.name}, and the integer product gives float32"
        if min(linear.channels, linear.columns) < self.least:
            return f"{linear.channels} x {linear.columns} is too small to pay"
        if name in self.per_token and self.form == "qdq":
            return "plain Q/DQ has no scale per token"
        return ""

    @classmethod
    def examples(cls) -> Examples:
        """MatMul, MatMul and Add, Gemm; linears that are unseen, small, or not float32."""
        return linear_examples()

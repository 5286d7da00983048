"""Conv(x, W, b)  =>  Dequantize(QLinearConv(Quantize(x), int8 W, int32 b)), channels last

Fires on a convolution over two spatial axes whose input calibration has seen. Activations become uint8,
asymmetric, one scale for the tensor; weights int8, symmetric, one scale for each output channel. The kernel
rounds its result as well, to the grid of the convolutions that read it, which round it anyway. A Relu
in between is what the grid does, whose least code is zero. A 1x1 convolution that something else reads is a
product that gives floats; other convolutions stay float then, unless `round_outputs` is set.

ONNX Runtime's integer convolution of uint8 and int8 wants channels last. Around each stand the transposes
that bring them there and back; between two of them `cancel-across` takes them away, after `move-codes` has
taken floats away. A transposed convolution has no integer kernel: see `phase-transposed-convs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxq.contract import Context, Contract, Edit, Examples, Needs, Pass, Reject
from onnxq.edit import label_of
from onnxq.ir.convolution import Convolution, find_convolution, only_reader
from onnxq.ir.labels import is_named
from onnxq.ir.walk import constant_of, input_of, is_op, nodes
from onnxq.passes.quantize.convolution_emission import emit_convolution, emit_product
from onnxq.passes.quantize.known import bounds_of
from onnxq.passes.quantize.ranges import QuantParams, choose_range, params_for
from onnxq.passes.vision_evidence import quantizable_examples
from onnxq.statistics import Statistic, Statistics

ConvRangeMethod = Literal["minmax", "percentile", "mse"]
_MOVES = ("Transpose", "Reshape", "Slice", "DepthToSpace", "SpaceToDepth", "Identity")
_SPATIAL = 2
_RENAMED = "_convolved/Conv"
"""What exact passes put behind the name of a node that they made a convolution of."""


@dataclass(frozen=True, eq=False)
class QuantizableConv:
    """A convolution and the grids of what it reads and gives.

    Attributes:
        convolution: What was found.
        params: Of its input.
        result: What the integer kernel gives: the output, or that of a Relu behind it.
        given: Of its result; None for a product that gives floats.
    """

    convolution: Convolution
    params: QuantParams
    result: ir.Value
    given: QuantParams | None


@dataclass(frozen=True)
class QuantizeConvs(Pass):
    """Float convolution => integer convolution.

    Attributes:
        method: How activation ranges are chosen: "minmax", "percentile" or "mse".
        percentile: For "percentile", in percent.
        margin: Part by which ranges are widened, for data that reaches further than the calibration's.
        weight_bits: 2 to 8; 7 for x86 processors without VNNI.
        least: Fewest products at a position that are worth integers.
        round_outputs: Whether results that are read as floats may be rounded to 8 bits.
        only: Names of the only convolutions to look at; all if there are none.
        skip: Names of convolutions that stay float; ``*`` stands for any text.
    """

    method: ConvRangeMethod = "minmax"
    percentile: float = 99.99
    margin: float = 0.0
    weight_bits: int = 8
    least: int = 256
    round_outputs: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "quantize-convs"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.HISTOGRAM}), opset=13)

    def observe(self, model: ir.Model) -> Iterable[ir.Value]:
        """Inputs of all convolutions, which give the grids, and results that may be rounded without one."""
        found = [each for node in nodes(model) if isinstance(each := find_convolution(node), Convolution)]
        chosen = [each for each in found if not self._obstacle(each)]
        for each in found if chosen else ():
            if each.dtype.name == "float32":
                yield each.activation
        for each in chosen if self.round_outputs else ():
            yield _result_of(each)

    def match(self, node: ir.Node, context: Context) -> QuantizableConv | Reject | None:
        """A convolution, and the grids of its input and its result."""
        found = find_convolution(node)
        if found is None or isinstance(found, Reject):
            return found
        if reason := self._obstacle(found):
            return Reject(reason, label_of(node))
        params = self._params(found.activation, context.statistics)
        if params is None:
            return Reject("calibration has no statistics of its input", label_of(node))
        result = _result_of(found)
        given = self._grid_behind(result, context.statistics)
        if given is None and found.is_pointwise:
            return QuantizableConv(found, params, found.output, None)
        if given is None and self.round_outputs:
            given = self._params(result, context.statistics)
        if given is None:
            return Reject("its result is read as floats", label_of(node))
        if result is not found.output and given.zero_point != 0:
            result = found.output  # the Relu is more than the end of the grid
        return QuantizableConv(found, params, result, given)

    def rewrite(self, found: QuantizableConv, edit: Edit) -> None:
        """Put the integer kernel in the convolution's place."""
        if found.given is None:
            emit_product(found.convolution, found.params, self.weight_bits, edit)
        else:
            emit_convolution(
                found.convolution, found.params, found.given, found.result, self.weight_bits, edit
            )

    def _obstacle(self, found: Convolution) -> str:
        label = label_of(found.node)
        names = {label, label.removesuffix(_RENAMED)}
        if any(is_named(name, self.skip) for name in names):
            return "told to stay float"
        if self.only and not names & set(self.only):
            return "not among those to look at"
        if found.transposed:
            return "a transposed convolution has no integer kernel"
        if len(found.kernel) != _SPATIAL or found.groups > 1:
            return "it has groups, or not two spatial axes"
        if found.dtype.name != "float32":
            return f"it computes in {found.dtype.name}, and the integer kernel stands for float32"
        if found.channels * math.prod(found.kernel) * found.columns < self.least:
            return "it is too small to pay"
        return ""

    def _params(self, value: ir.Value, statistics: Statistics) -> QuantParams | None:
        seen = statistics.get(str(value.name))
        if (bounds := bounds_of(value)) is not None:
            return params_for(*bounds)
        if seen is None or not math.isfinite(seen.low):
            return None
        return params_for(*choose_range(seen, self.method, self.percentile, self.margin))

    def _grid_behind(self, value: ir.Value, statistics: Statistics) -> QuantParams | None:
        """The one grid for all that read `value`, however it is moved before: QuantizeLinear, convolutions.

        A convolution that stays float reads rounded numbers then. None where something else reads it, or
        each wants another grid.
        """
        if value.is_graph_output():
            return None
        grids: set[QuantParams | None] = set()
        for node, index in value.uses():
            if index == 0 and is_op(node, *_MOVES):
                grids.add(self._grid_behind(node.outputs[0], statistics))
            elif index == 0 and is_op(node, "QuantizeLinear"):
                grids.add(_grid_of(node))
            elif index == 0 and isinstance(find_convolution(node), Convolution):
                grids.add(self._params(value, statistics))
            else:
                return None
        return grids.pop() if len(grids) == 1 else None

    @classmethod
    def examples(cls) -> Examples:
        """Chains of convolutions, Relu and moves between, a narrow end; unseen, small and grouped ones."""
        return quantizable_examples()


def _result_of(found: Convolution) -> ir.Value:
    """The output, or that of a Relu that alone reads it."""
    reader = only_reader(found.output)
    return reader.outputs[0] if reader is not None and is_op(reader, "Relu") else found.output


def _grid_of(node: ir.Node) -> QuantParams | None:
    scale, zero = constant_of(input_of(node, 1)), constant_of(input_of(node, 2))
    if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8:
        return None
    return QuantParams(np.float32(scale.item()), np.uint8(zero.item()))

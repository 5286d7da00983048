"""Quantized graphs that ONNX Runtime runs slowly, or wrongly, without a word: how to recognise them and why.

Found by reading ONNX Runtime's QDQ selectors (``core/optimizer/qdq_transformer``) and by running each case on
its CPU provider. A product whose weight keeps its DequantizeLinear dequantizes that weight at every run and
loses prepacking: it is several times slower than the float model it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.runtime.dequantized import dequantize_of, is_constant, weight_dequantize

# Integer products, and which of their inputs is the weight.
_WEIGHT_OF = {"MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, "QLinearMatMul": 3, "QGemm": 3}

DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
"""Operators that find one scale for a whole activation while running."""
INT8_LEVEL = 4
"""The accuracy level of MatMulNBits with integer kernels."""

REASONS = {
    # products that stay float
    "table-dequantized": (
        "the whole table is dequantized at every run; gather the integers and dequantize the rows"
    ),
    "mixed-readers": (
        "the output is read by QuantizeLinear and by something else, and a fused product has readers "
        "of one kind; quantize none of them, or all through one QuantizeLinear"
    ),
    "no-zero-point": (
        "Gemm fuses only where each DequantizeLinear states its zero point; give it, even if it is 0"
    ),
    "float-bias": (
        "Gemm with a float bias fuses only in front of QuantizeLinear; give the bias as int32 behind "
        "DequantizeLinear (scale = activation scale * weight scale), or use MatMulIntegerToFloat"
    ),
    "shared-signed-activation": (
        "int8 activations that several nodes share are not turned into uint8, and x86 has no kernel "
        "for them; use uint8"
    ),
    "shared-scale": (
        "the weight or its scale is read twice (equal scalar scales are merged), which MatMulNBits "
        "refuses; use scales per column"
    ),
    "scale-per-row": "scales per row of a weight have no kernel; use scales per column (axis 1)",
    "transposed-weight": "a weight-only Gemm with transB=1 is not matched; store the weight transposed",
    "weight-only": "this float product with a dequantized weight did not become MatMulNBits",
    "unknown": "the runtime did not fuse this product and no known rule says why",
    # kernels that are slow
    "scalar-softmax": (
        "QLinearSoftmax is scalar, several times slower than the float Softmax; leave Softmax float"
    ),
    "scalar-skip-norm": (
        "SkipLayerNormalization is scalar on CPUs; open the model without SkipLayerNormFusion and "
        "BiasSkipLayerNormFusion"
    ),
    "block-32": (
        "8-bit weights in blocks of 32, what weight-only Q/DQ becomes, are half as fast as in blocks "
        "of 256; set session.qdq_matmulnbits_block_size to -1, or quantize the activations too"
    ),
    "blocks-dequantized": (
        "MatMulNBits has no kernel for this form and dequantizes the whole weight at every run, up to a "
        "hundred times slower on one row; use accuracy_level 4, packed uint8 zero points or none, constant "
        "weights without g_idx, and 2 bits in blocks of 32, 64 or 128 alone"
    ),
    "blocks-in-float": (
        "4-bit weights at an accuracy level other than 4 are multiplied in float, three times slower on one "
        "row; use accuracy_level 4"
    ),
    "unsigned-weight": (
        "uint8 weights miss the uint8 x int8 kernel of x86; store int8 weights and leave "
        "session.x64quantprecision off"
    ),
    "signed-activation": "int8 activations run in a scalar kernel on most x86; use uint8",
    # what computes something else, or not at all
    "scale-of-the-batch": (
        "one scale is found for all samples of a run, so what a sample gives depends on the others in its "
        "batch; use a scale for each token, or a fixed one"
    ),
    "blocks-float-zero-points": (
        "MatMulNBits with 8 bits and float zero points is refused when the model is opened; pack them as "
        "uint8"
    ),
    "scale-per-row-fused": (
        "scales per row are taken for scales per column: wrong numbers where the weight is square, an "
        "error at the first run where it is not; use axis 1"
    ),
    "activation-per-channel": "per-channel activations are fused and fail at the first run; use one scale",
    "vector-scale": (
        "onnxruntime 1.31 refuses the model for a per-channel constant between DequantizeLinear and "
        "QuantizeLinear at this operator; keep such constants float"
    ),
}


@dataclass(frozen=True)
class Trap:
    """A node that does not run as its author meant.

    Attributes:
        node: Its name.
        op: Its operator.
        slug: A key of `REASONS`.
    """

    node: str
    op: str
    slug: str

    @property
    def reason(self) -> str:
        """What happens and what to do instead, in a sentence."""
        return REASONS[self.slug]


def find_unfused(optimized: ir.Model) -> list[Trap]:
    """Products with quantized weights that an optimised graph still computes in float, in graph order.

    Args:
        optimized: What the runtime made of a model, from `onnxq.runtime.readback.optimized_graph`.
    """
    return _find(optimized, _why_unfused)


def find_slow(optimized: ir.Model) -> list[Trap]:
    """Nodes of an optimised graph whose kernels are slow on x86 for what they do, in graph order."""
    return _find(optimized, _why_slow)


def find_miscomputed(source: ir.Model) -> list[Trap]:
    """Forms that compute something else than they seem to, in graph order.

    Q/DQ that the runtime fuses although its kernels cannot compute it, and scales that depend on the batch.

    Args:
        source: The Q/DQ model as its author wrote it; in the optimised graph the evidence is gone.
    """
    return _find(source, _why_miscomputed)


def _find(model: ir.Model, why: Callable[[ir.Node], str | None]) -> list[Trap]:
    parts: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    nodes = (node for part in parts for node in part.all_nodes())
    return [Trap(node.name or "", node.op_type, slug) for node in nodes if (slug := why(node)) is not None]


def _why_unfused(node: ir.Node) -> str | None:
    weight = weight_dequantize(node)
    if weight is None:
        return None
    if node.op_type == "Gather":
        return "table-dequantized"
    others = [found for value in node.inputs[:2] if (found := dequantize_of(value)) not in (None, weight)]
    if not others:
        return _why_weight_only(node, weight)
    activation = others[0]
    assert activation is not None
    if _mixed_readers(node.outputs[0]):
        return "mixed-readers"
    if node.op_type == "Gemm" and (_zero_point(weight) is None or _zero_point(activation) is None):
        return "no-zero-point"
    if _element(activation) == ir.DataType.INT8:
        return "shared-signed-activation"
    if node.op_type == "Gemm" and len(node.inputs) > 2 and dequantize_of(node.inputs[2]) is None:
        return "float-bias"
    return "unknown"


def _why_weight_only(node: ir.Node, weight: ir.Node) -> str:
    """Weight-only products become MatMulNBits under conditions of their own."""
    if any(value is not None and len(value.uses()) > 1 for value in weight.inputs[:2]):
        return "shared-scale"
    if _is_vector(weight.inputs[1]) and _axis(weight) in (0, -2):
        return "scale-per-row"
    if node.op_type == "Gemm" and _integer(node, "transB", 0):
        return "transposed-weight"
    return "weight-only"


def _why_slow(node: ir.Node) -> str | None:
    if node.op_type == "QLinearSoftmax":
        return "scalar-softmax"
    if node.op_type == "SkipLayerNormalization":
        return "scalar-skip-norm"
    if node.op_type == "MatMulNBits":
        return _why_blocks_slow(node)
    if node.op_type not in _WEIGHT_OF:
        return None
    weight, activation = node.inputs[_WEIGHT_OF[node.op_type]], node.inputs[0]
    if weight is not None and is_constant(weight) and weight.dtype == ir.DataType.UINT8:
        return "unsigned-weight"
    if activation is not None and _signed(activation):
        return "signed-activation"
    return None


def _why_blocks_slow(node: ir.Node) -> str | None:
    """Found by comparing times, and whether activations are rounded, which integer kernels alone do."""
    bits, block = _integer(node, "bits", 4), _integer(node, "block_size", 0)
    integer = _integer(node, "accuracy_level", 0) == INT8_LEVEL
    odd = _float_zero_points(node) or (len(node.inputs) > 4 and node.inputs[4] is not None)
    without = (bits == 2 and block not in (32, 64, 128)) or (bits in (2, 8) and not integer)
    if odd or without or not is_constant(node.inputs[1]):
        return "blocks-dequantized"
    if not integer:
        return "blocks-in-float"
    return "block-32" if (bits, block) == (8, 32) else None


def _float_zero_points(node: ir.Node) -> bool:
    zero_points = node.inputs[3] if len(node.inputs) > 3 else None
    return zero_points is not None and zero_points.dtype not in (None, ir.DataType.UINT8)


def _why_miscomputed(node: ir.Node) -> str | None:
    if node.op_type in DYNAMIC:
        return "scale-of-the-batch"
    if node.op_type == "MatMulNBits":
        refused = _integer(node, "bits", 4) == 8 and _float_zero_points(node)
        return "blocks-float-zero-points" if refused else None
    if node.op_type in ("Add", "Mul"):
        scales = [found.inputs[1] for value in node.inputs if (found := dequantize_of(value)) is not None]
        requantized = any(user.op_type == "QuantizeLinear" for user, _ in node.outputs[0].uses())
        return "vector-scale" if requantized and any(_is_vector(scale) for scale in scales) else None
    weight = weight_dequantize(node)
    activation = dequantize_of(node.inputs[0]) if weight is not None else None
    if node.op_type != "MatMul" or weight is None or activation is None:
        return None
    direct = node.inputs[1] is weight.outputs[0]
    if direct and _is_vector(weight.inputs[1]) and _axis(weight) in (0, -2):
        return "scale-per-row-fused"
    return "activation-per-channel" if _is_vector(activation.inputs[1]) else None


def _mixed_readers(value: ir.Value) -> bool:
    readers = [user.op_type for user, _ in value.uses()] + ["output"] * value.is_graph_output()
    return "QuantizeLinear" in readers and len(readers) > 1


def _is_vector(value: ir.Value | None) -> bool:
    shape = value.shape if value is not None else None
    return shape is not None and len(shape) == 1 and shape[0] != 1


def _signed(activation: ir.Value) -> bool:
    """Whether a quantized activation is int8: its own type, or that of the zero point it was made with."""
    producer = activation.producer()
    if producer is not None and producer.op_type == "QuantizeLinear":
        zero_point = _zero_point(producer)
        return zero_point is not None and zero_point.dtype == ir.DataType.INT8
    return activation.dtype == ir.DataType.INT8


def _zero_point(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _element(dequantize: ir.Node) -> ir.DataType | None:
    """The integer type that is dequantized; the zero point has it even where types were not inferred."""
    zero_point, value = _zero_point(dequantize), dequantize.inputs[0]
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    return value.dtype if value is not None else None


def _axis(node: ir.Node) -> int:
    return _integer(node, "axis", 1)


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes.get_int(name, default)

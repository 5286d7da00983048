"""Quantized graphs that ONNX Runtime runs slowly, or wrongly, without a word: how to recognise them and why.

Found by reading ONNX Runtime's QDQ selectors (``core/optimizer/qdq_transformer``) and by running each case on its
CPU provider. A product whose weight keeps its DequantizeLinear dequantizes that weight at every run and loses
prepacking: it is several times slower than the float model it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Conv", "FusedConv", "Gather"})
_PASSAGES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Flatten"})


@dataclass(frozen=True)
class Trap:
    """A node that does not run as its author meant.

    Attributes:
        node: Its name.
        op: Its operator.
        slug: A stable kebab-case word for the trap.
        reason: What happens and what to do instead, in a sentence.
    """

    node: str
    op: str
    slug: str
    reason: str


def find_unfused(optimized: ir.Model) -> list[Trap]:
    """Products with quantized weights that an optimised graph still computes in float, in graph order.

    Args:
        optimized: What the runtime made of a model, from `onnxq.runtime.optimized_graph`.
    """
    traps = []
    for node in _nodes(optimized):
        weight = weight_dequantize(node)
        if weight is not None:
            slug, reason = _why_unfused(node, weight)
            traps.append(Trap(node.name or "", node.op_type, slug, reason))
    return traps


def find_slow(optimized: ir.Model) -> list[Trap]:
    """Nodes of an optimised graph that run in integers and are slow on x86 nevertheless, in graph order."""
    traps = []
    for node in _nodes(optimized):
        found = _why_slow(node)
        if found is not None:
            traps.append(Trap(node.name or "", node.op_type, *found))
    return traps


def find_miscomputed(source: ir.Model) -> list[Trap]:
    """Q/DQ forms that the runtime fuses although its kernels cannot compute them, in graph order.

    Args:
        source: The Q/DQ model as its author wrote it; in the optimised graph the evidence is gone.
    """
    traps = []
    for node in _nodes(source):
        found = _why_miscomputed(node)
        if found is not None:
            traps.append(Trap(node.name or "", node.op_type, *found))
    return traps


def weight_dequantize(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear of a constant weight that a product reads, through shape operators."""
    if node.op_type not in _PRODUCTS:
        return None
    for value in node.inputs[: 1 if node.op_type == "Gather" else 2]:
        dequantize = dequantize_of(value)
        if dequantize is not None and _is_constant(dequantize.inputs[0]):
            return dequantize
    return None


def dequantize_of(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that gives `value`, through shape operators."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _PASSAGES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _why_unfused(node: ir.Node, weight: ir.Node) -> tuple[str, str]:
    if node.op_type == "Gather":
        return "table-dequantized", (
            "the whole table is dequantized at every run; gather from the integers and dequantize the rows"
        )
    activation = next(
        (
            found
            for value in node.inputs[:2]
            if (found := dequantize_of(value)) is not None and found is not weight
        ),
        None,
    )
    if activation is None:
        return _why_weight_only(node, weight)
    if _mixed_readers(node.outputs[0]):
        return "mixed-readers", (
            "the output is read by QuantizeLinear and by something else; a fused product has one kind of reader"
        )
    if node.op_type == "Gemm" and (_zero_point(weight) is None or _zero_point(activation) is None):
        return "no-zero-point", "Gemm fuses only where each DequantizeLinear states its zero point"
    if _element(activation) == ir.DataType.INT8:
        return "signed-activation", (
            "int8 activations that several nodes share are not turned into uint8, and x86 has no kernel for them; "
            "use uint8"
        )
    if node.op_type == "Gemm" and len(node.inputs) > 2 and dequantize_of(node.inputs[2]) is None:
        return "float-bias", (
            "Gemm with a float bias fuses only in front of QuantizeLinear; give the bias as int32 behind "
            "DequantizeLinear (scale = activation scale * weight scale), or use MatMulIntegerToFloat"
        )
    return "unknown", "the runtime did not fuse this product and no known rule says why"


def _why_weight_only(node: ir.Node, weight: ir.Node) -> tuple[str, str]:
    """Weight-only products become MatMulNBits under conditions of their own."""
    scale = weight.inputs[1]
    assert scale is not None
    if any(len(value.uses()) > 1 for value in (weight.inputs[0], scale) if value is not None):
        return "shared-scale", (
            "the weight or its scale is read twice (equal scalar scales are merged), which MatMulNBits refuses; "
            "use scales per column"
        )
    per_channel = scale.shape is not None and len(scale.shape) == 1 and scale.shape[0] != 1
    if per_channel and _axis(weight) % 2 == 0:
        return "scale-per-row", "scales per row of the weight have no kernel; use scales per column (axis 1)"
    if node.op_type == "Gemm" and _integer(node, "transB", 0):
        return (
            "transposed-weight",
            "a weight-only Gemm with transB=1 is not matched; store the weight transposed",
        )
    return (
        "weight-only",
        "a weight that is dequantized in front of a float product did not become MatMulNBits",
    )


def _why_slow(node: ir.Node) -> tuple[str, str] | None:
    if node.op_type == "QLinearSoftmax":
        return (
            "quantized-softmax",
            "QLinearSoftmax is scalar, several times slower than float Softmax; leave it float",
        )
    if node.op_type in ("SkipLayerNormalization", "BiasSkipLayerNormalization"):
        return "skip-layer-norm", (
            "SkipLayerNormalization is scalar on CPUs; open the model without SkipLayerNormFusion and "
            "BiasSkipLayerNormFusion"
        )
    if (
        node.op_type == "MatMulNBits"
        and _integer(node, "bits", 4) == 8
        and _integer(node, "block_size", 0) <= 32
    ):
        return "block-32", (
            "8-bit weights in blocks of 32, what weight-only Q/DQ becomes, are half as fast as in blocks of 256; set "
            "session.qdq_matmulnbits_block_size to -1, or quantize the activations too"
        )
    if node.op_type in ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul"):
        return _why_slow_product(node)
    return None


def _why_slow_product(node: ir.Node) -> tuple[str, str] | None:
    weight = node.inputs[3 if node.op_type in ("QLinearMatMul", "QGemm") else 1]
    if _is_constant(weight) and weight is not None and weight.dtype == ir.DataType.UINT8:
        return "unsigned-weight", (
            "uint8 weights miss the uint8 x int8 kernel of x86; store int8 weights and leave "
            "session.x64quantprecision off"
        )
    activation = node.inputs[0]
    if activation is not None and activation.dtype == ir.DataType.INT8:
        return "signed-activation", "int8 activations run in a scalar kernel on most x86; use uint8"
    return None


def _why_miscomputed(node: ir.Node) -> tuple[str, str] | None:
    weight = weight_dequantize(node)
    if node.op_type == "MatMul" and weight is not None and node.inputs[0] is not None:
        if _is_vector(weight.inputs[1]) and _axis(weight) == 0 and node.inputs[1] is weight.outputs[0]:
            return "scale-per-row", (
                "scales per row are taken for scales per column: wrong numbers where the weight is square, an error "
                "at the first run where it is not; use axis 1"
            )
        activation = dequantize_of(node.inputs[0])
        if activation is not None and _is_vector(activation.inputs[1]):
            return "activation-per-channel", (
                "per-channel activations are fused and then fail at the first run; use one scale per tensor"
            )
    if node.op_type in ("Add", "Mul") and any(
        (found := dequantize_of(value)) is not None and _is_vector(found.inputs[1]) for value in node.inputs
    ):
        if any(user.op_type == "QuantizeLinear" for user, _ in node.outputs[0].uses()):
            return "vector-scale", (
                f"{node.op_type} between per-channel DequantizeLinear and QuantizeLinear makes onnxruntime 1.31 refuse "
                "the model; keep such constants float"
            )
    return None


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _mixed_readers(value: ir.Value) -> bool:
    readers = [user.op_type for user, _ in value.uses()] + ["output"] * value.is_graph_output()
    return "QuantizeLinear" in readers and len(readers) > 1


def _is_constant(value: ir.Value | None) -> bool:
    if value is None:
        return False
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _is_vector(value: ir.Value | None) -> bool:
    shape = value.shape if value is not None else None
    return shape is not None and len(shape) == 1 and shape[0] != 1


def _zero_point(dequantize: ir.Node) -> ir.Value | None:
    return dequantize.inputs[2] if len(dequantize.inputs) > 2 else None


def _element(dequantize: ir.Node) -> ir.DataType | None:
    """The integer type that a DequantizeLinear reads; its zero point has it even where shapes were not inferred."""
    zero_point, value = _zero_point(dequantize), dequantize.inputs[0]
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    return value.dtype if value is not None else None


def _axis(node: ir.Node) -> int:
    return _integer(node, "axis", 1)


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes.get_int(name, default)

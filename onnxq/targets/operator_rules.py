"""Rules about operators and their attributes."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from onnxq.runtime.traps import DYNAMIC

_STANDARD = ("", "ai.onnx")
_CUDA_BLOCKS = (32, 64, 128)
_INTEGER_OPERATORS = frozenset(
    {
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
        "QEmbedLayerNormalization",
        "ConvInteger",
    }
)


def is_foreign(node: ir.Node, own: Collection[tuple[str, str]]) -> bool:
    """Neither a standard operator nor a function of the model's own."""
    return node.domain not in _STANDARD and (node.domain, node.op_type) not in own


def is_skip_norm(node: ir.Node) -> bool:
    """The fused sum and norm, whose CPU kernel is scalar."""
    return node.op_type == "SkipLayerNormalization"


def finds_scale_of_batch(node: ir.Node) -> bool:
    """One scale for a whole activation, found while running."""
    return node.op_type in DYNAMIC


def lacks_cuda_kernel(node: ir.Node) -> bool:
    """An integer operator that is for CPUs alone."""
    return node.op_type in _INTEGER_OPERATORS or node.op_type.startswith("QLinear")


def has_narrow_blocks(node: ir.Node) -> bool:
    """MatMulNBits with codes of other than 4 or 8 bits."""
    return node.op_type == "MatMulNBits" and node.attributes.get_int("bits", 4) not in (4, 8)


def has_odd_blocks(node: ir.Node) -> bool:
    """MatMulNBits in blocks that the weight-only kernels do not take."""
    return node.op_type == "MatMulNBits" and node.attributes.get_int("block_size", 0) not in _CUDA_BLOCKS

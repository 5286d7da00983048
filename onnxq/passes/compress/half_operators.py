"""Operators that runtimes have in float16, and which of their inputs are then float16."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxq.ir.walk import input_of

_STANDARD = frozenset(
    {
        "Abs", "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "ConvTranspose",
        "DepthToSpace", "Div", "Dropout", "Elu", "Erf", "Exp", "Expand", "Flatten", "Gather",
        "GatherElements", "Gelu", "Gemm", "GlobalAveragePool", "GroupNormalization",
        "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization",
        "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad", "Pow",
        "RMSNormalization", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
        "Relu", "Reshape", "Resize", "Sigmoid", "Sign", "Slice", "Softmax", "SpaceToDepth",
        "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unsqueeze",
        "Where",
    }
)  # fmt: skip
_MICROSOFT = frozenset(
    {
        "BiasGelu", "FastGelu", "FusedMatMul", "Gelu", "GroupQueryAttention", "MatMulNBits",
        "MultiHeadAttention", "QuickGelu", "RotaryEmbedding", "SimplifiedLayerNormalization",
    }
)  # fmt: skip
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})
HALF_SCALES = 19
"""The operator set from which on QuantizeLinear takes float16."""
_ONLY_FIRST = frozenset({"Resize"})
_WHOLE_NUMBERS = frozenset(
    {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.BOOL, ir.DataType.INT4, ir.DataType.UINT4}
)
"""Whose every value float16 holds."""


def can_be_half(node: ir.Node, opset: int) -> bool:
    """Whether there is a float16 form of `node` in an operator set."""
    if node.domain == "com.microsoft":
        return node.op_type in _MICROSOFT
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _ROUNDING:
        return opset >= HALF_SCALES
    if node.op_type == "Cast":
        source = input_of(node, 0)
        to_float = node.attributes.get_int("to", 0) == int(ir.DataType.FLOAT)
        return to_float and source is not None and source.dtype in _WHOLE_NUMBERS
    if node.op_type == "LayerNormalization" and len(node.outputs) > 1:
        return False  # mean and deviation are float32 in any case
    return node.op_type in _STANDARD


def float_inputs(node: ir.Node) -> Iterator[int]:
    """Places of the inputs that are float32 and become float16."""
    for place, value in enumerate(node.inputs[:1] if node.op_type in _ONLY_FIRST else node.inputs):
        if value is not None and value.dtype == ir.DataType.FLOAT:
            yield place

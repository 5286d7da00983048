"""One small function of torch for each operator."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as nn

from onnxq.learn.operators.attention import attend
from onnxq.learn.operators.call import Call as Call
from onnxq.learn.operators.call import Rule as Rule
from onnxq.learn.operators.call import Tensor as Tensor
from onnxq.learn.operators.call import tensor_of as tensor_of
from onnxq.learn.operators.elementwise import ELEMENTWISE
from onnxq.learn.operators.products import PRODUCTS
from onnxq.learn.operators.reductions import REDUCTIONS
from onnxq.learn.operators.resize import resize
from onnxq.learn.operators.selections import SELECTIONS
from onnxq.learn.operators.shapes import SHAPES

_DEFAULT: Mapping[str, Rule] = {
    **ELEMENTWISE,
    **SHAPES,
    **SELECTIONS,
    **REDUCTIONS,
    **PRODUCTS,
    "Attention": attend,
    "Resize": resize,
}
_MICROSOFT: Mapping[str, Rule] = {
    "Gelu": lambda call, x: nn.gelu(x),
    "QuickGelu": lambda call, x: x * (call.number("alpha", 1.702) * x).sigmoid(),
}
RULES: Mapping[str, Mapping[str, Rule]] = {"": _DEFAULT, "ai.onnx": _DEFAULT, "com.microsoft": _MICROSOFT}
"""Rules by domain and operator."""

"""What a rule is told of the node it stands for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from onnxq.edit import label_of
from onnxq.errors import UnsupportedModel

Tensor: TypeAlias = torch.Tensor
Rule = Callable[..., Any]
"""``rule(call, *inputs)`` gives the output, or a tuple of outputs; an input that is left out is None."""

_TORCH = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}

_NUMPY = {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"}


@dataclass(frozen=True)
class Call:
    """A node, and the version of the operator set that defines it.

    Attributes:
        node: The node.
        opset: Version of the operator set of its domain.
    """

    node: ir.Node
    opset: int

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else found.as_int()

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else found.as_float()

    def integers(self, name: str) -> list[int] | None:
        """An attribute of integers, None if it is absent."""
        found = self.node.attributes.get(name)
        return None if found is None else [int(each) for each in found.as_ints()]

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else found.as_string()

    def axes(self, given: Tensor | None) -> list[int] | None:
        """The axes of a reduction or of Squeeze: an input in newer opsets, else an attribute."""
        return integers_of(given) if given is not None else self.integers("axes")

    def refuse(self, what: str) -> UnsupportedModel:
        """The error to raise for a form of the operator that no rule covers."""
        return UnsupportedModel(
            f"node {label_of(self.node)!r}: {self.node.op_type} {what} has no gradient here",
            hint="Learn on a part of the model without it, or use the methods that need no torch.",
            slug="no-gradient-rule",
        )


def integers_of(tensor: Tensor) -> list[int]:
    """The elements of an integer tensor."""
    return [int(each) for each in tensor.reshape(-1).tolist()]


def torch_type(dtype: ir.DataType) -> Any:
    """The element type as torch knows it; None if it does not."""
    return _TORCH.get(dtype)


def tensor_of(array: np.ndarray) -> Tensor:
    """A tensor over the array's own memory, which must not be written to.

    Raises:
        UnsupportedModel: torch has no such element type.
    """
    array = np.asarray(array, order="C")
    storage = array.view(np.int16) if array.dtype == ml_dtypes.bfloat16 else array
    if storage.dtype.name not in _NUMPY:
        raise UnsupportedModel(
            f"torch computes with no element type {array.dtype}",
            hint="Learn on a float model, before it is quantized.",
            slug="no-torch-type",
        )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # memory-mapped weights are read-only, and stay unwritten
        tensor = torch.from_numpy(storage)
    return tensor if storage is array else tensor.view(torch.bfloat16)

"""Small models for the tests of files."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnxq.files import from_proto

OPSETS = (helper.make_opsetid("", 21), helper.make_opsetid("custom", 1))


def tensor(name: str, *dims: int, seed: int = 0) -> onnx.TensorProto:
    """Random float32 numbers."""
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(dims).astype(np.float32), name)


def value(name: str, *dims: int | str) -> onnx.ValueInfoProto:
    """A float32 value."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def model_of(graph: onnx.GraphProto, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    return helper.make_model(graph, functions=list(functions), opset_imports=list(OPSETS), ir_version=11)


def linear_proto(columns: int = 300, seed: int = 0) -> onnx.ModelProto:
    """x [N, 4] @ w [4, columns] + b [columns] -> y; `w` is large enough to be moved out."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="matmul"),
        helper.make_node("Add", ["xw", "b"], ["y"], name="add"),
    ]
    weights = [tensor("w", 4, columns, seed=seed), tensor("b", columns, seed=seed + 1)]
    return model_of(
        helper.make_graph(nodes, "linear", [value("x", "N", 4)], [value("y", "N", columns)], weights)
    )


def linear(columns: int = 300, seed: int = 0) -> ir.Model:
    return from_proto(linear_proto(columns, seed))


def branch(
    *nodes: onnx.NodeProto, output: str, initializers: tuple[onnx.TensorProto, ...] = ()
) -> onnx.GraphProto:
    """A subgraph without inputs."""
    return helper.make_graph(list(nodes), "branch", [], [value(output, 4)], list(initializers))

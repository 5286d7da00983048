"""A model in float64, run by the reference of ONNX: two of them differ by algebra, not by rounding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxq.ir.walk import nodes

_FLOATS = {TensorProto.FLOAT: TensorProto.DOUBLE}
_PRECISIONS = ("to", "stash_type", "softmax_precision")
HALF_ROUNDING = 2.0**-24


class Unknown(Exception):
    """The reference of ONNX lacks an operator."""


def doubled(model: ir.Model, off: np.random.Generator | None = None) -> onnx.ModelProto:
    """The model with all its float32 in float64.

    Args:
        model: The model.
        off: Constants are moved by up to half a rounding of float32, drawn from this; they stay if None.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(ir.to_proto(model))
    sizes = {node.input[2] for node in proto.graph.node if node.op_type == "Resize" and len(node.input) > 2}
    for graph in _graphs(proto.graph):
        for tensor in graph.initializer:
            _double(tensor, off if tensor.name not in sizes else None)
        for value in (*graph.input, *graph.output, *graph.value_info):
            element = value.type.tensor_type.elem_type
            value.type.tensor_type.elem_type = _FLOATS.get(element, element)
        _double_nodes(graph.node, sizes, off)
    for function in proto.functions:
        _double_nodes(function.node, sizes, off)
    return proto


def computed_in_float64(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs, by name.

    Raises:
        Unknown: It has operators of ONNX Runtime's own.
    """
    if own := {node.op_type for node in nodes(ir.from_proto(model)) if node.domain == "com.microsoft"}:
        raise Unknown(", ".join(sorted(own)))
    wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array
            for name, array in feed.items()}  # fmt: skip
    names = [output.name for output in model.graph.output]
    try:
        evaluator = ReferenceEvaluator(model)
    except NotImplementedError as error:  # ONNX Runtime's own may also be in the domain of ONNX
        raise Unknown(str(error)) from error
    return dict(zip(names, evaluator.run(None, wide), strict=True))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _double_nodes(of: Iterable[onnx.NodeProto], sizes: set[str], off: np.random.Generator | None) -> None:
    for node in of:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _double(attribute.t, off if node.output[0] not in sizes else None)
            elif attribute.name in _PRECISIONS:
                attribute.i = _FLOATS.get(attribute.i, attribute.i)
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                array = np.array(helper.get_attribute_value(attribute), np.float64)
                tensor = numpy_helper.from_array(array)
                attribute.CopyFrom(helper.make_attribute("value", tensor))


def _double(tensor: TensorProto, off: np.random.Generator | None) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    array = numpy_helper.to_array(tensor).astype(np.float64)
    if off is not None and array.size > 1:
        array = array * (1 + off.uniform(-HALF_ROUNDING, HALF_ROUNDING, array.shape))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

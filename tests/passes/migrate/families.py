"""Families of transformers as both of torch's exporters write them, in float32 and float16."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxq.contract import Contract, Pass
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import nodes
from onnxq.pipeline import PassResult, apply_pass
from onnxq.statistics import ChannelExtremes, Statistics, TensorStatistics
from onnxq.verify import Judgement, OracleSettings, judge
from onnxq.verify.hosts import InProcess
from tests.graphs import check, model_of, outputs_of
from tests.ir.test_exporters import exported

NAMES = ("post", "pre", "decoder", "crossed")
SPELLINGS = [
    *((name, 14, False, "float32") for name in NAMES),
    *((name, 17, False, "float32") for name in ("post", "decoder")),
    *((name, opset, True, "float32") for name in NAMES for opset in (18, 23)),
    ("post", 14, False, "float16"),
    *((name, 18, True, "float16") for name in NAMES),
]
every_spelling = pytest.mark.parametrize(
    ("name", "opset", "dynamo", "precision"), SPELLINGS, ids=lambda value: str(value)
)
C = 16
"""Channels of what `built` builds."""
HOST = InProcess()
QUICK = OracleSettings(seeds=1, sizes=1, corners=False, optimised=False, isolated=False)


def family(name: str, opset: int, dynamo: bool, precision: str = "float32") -> ir.Model:
    """A fresh copy of an export of `tests.ir.exported`."""
    proto = onnx.load_from_string(_family(name, opset, dynamo, precision))
    return ir.from_proto(proto)


@cache
def _family(name: str, opset: int, dynamo: bool, precision: str) -> bytes:
    proto = onnx.load_from_string(exported(name, opset, dynamo))
    if precision == "float16":
        _halve(proto.graph)
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return proto.SerializeToString()


def built(body: str, outputs: str = "double[N,16] y", inputs: str = "double[N,16] x") -> ir.Model:
    """A model in double precision, where rounding cannot hide a mistake."""
    random = np.random.default_rng(1)
    made = {name: random.normal(size=(C, C)) for name in ("w", "v", "u", "o")}
    made |= {name: random.normal(size=C) for name in ("b", "beta", "gamma")}
    used = {name: array for name, array in made.items() if f"{name})" in body or f"{name}," in body}
    return model_of(f"g ({inputs}) => ({outputs}) {{ {body} }}", **used)


def rewritten(
    model: ir.Model, a_pass: Pass, statistics: Statistics, feeds: Mapping[str, np.ndarray]
) -> PassResult:
    """What the pass makes of a model in double precision, which must compute the same, once and for all."""
    result = apply_pass(model, a_pass, statistics)
    check(result.model)
    assert result.settled
    old, new = outputs_of(model, feeds), outputs_of(result.model, feeds)
    for name, array in old.items():
        np.testing.assert_allclose(new[name], array, rtol=1e-11, atol=1e-11)
    assert not apply_pass(result.model, a_pass, statistics).changes
    return result


def judged(before: ir.Model, after: ir.Model) -> Judgement:
    """The oracle's verdict on exactness within rounding."""
    return judge(before, after, Contract.REASSOCIATES, settings=QUICK, host=HOST)


def norms_of(model: ir.Model) -> list[Norm]:
    return [norm for node in nodes(model) if isinstance(norm := find_norm(node), Norm)]


def linears_of(model: ir.Model) -> list[Linear]:
    return [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]


def arrays_of(model: ir.Model) -> dict[str, np.ndarray]:
    """Initializers and outputs of Constant nodes, by name."""
    found = {str(name): value.const_value.numpy() for name, value in model.graph.initializers.items()}
    for node in nodes(model):
        if node.op_type == "Constant" and "value" in node.attributes:
            found[str(node.outputs[0].name)] = node.attributes["value"].as_tensor().numpy()
    return found


def made_by(model: ir.Model, a_pass: Pass | type[Pass]) -> list[str]:
    """Operators of the nodes that a pass inserted."""
    return [node.op_type for node in nodes(model) if node.metadata_props.get("onnxq.pass") == a_pass.name]


def random_statistics(values: Iterable[tuple[str, int]], seed: int) -> Statistics:
    """Uneven and off-centre extremes of channels, for each name and number of channels."""
    random = np.random.default_rng(seed)
    found = {}
    for name, channels in values:
        centre = random.normal(size=channels)
        reach = 2 * random.random(channels) * np.where(random.random(channels) < 0.1, 10.0, 1.0)
        found[name] = TensorStatistics(1, channel=ChannelExtremes(centre - reach, centre + reach))
    return Statistics(found)


def norm_statistics(model: ir.Model, seed: int = 0) -> Statistics:
    return random_statistics([(str(norm.output.name), norm.channels) for norm in norms_of(model)], seed)


def activation_statistics(model: ir.Model, seed: int = 0) -> Statistics:
    return random_statistics(
        [(str(linear.activation.name), linear.channels) for linear in linears_of(model)], seed
    )


def _halve(graph: onnx.GraphProto) -> None:
    """All of the arithmetic in float16, but for Range, which has no such kernel."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in graph.initializer:
        _halve_tensor(tensor)
    kept = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _halve_tensor(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        kept += _with_casts(node) if node.op_type == "Range" else [node]
    nodes_before = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes_before)


def _halve_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        array = np.clip(numpy_helper.to_array(tensor), -65504, 65504).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _with_casts(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    output = node.output[0]
    casts = [
        helper.make_node("Cast", [name], [f"{output}_in{index}"], to=TensorProto.FLOAT)
        for index, name in enumerate(node.input)
    ]
    node.input[:] = [cast.output[0] for cast in casts]
    node.output[0] = f"{output}_wide"
    return [*casts, node, helper.make_node("Cast", [f"{output}_wide"], [output], to=TensorProto.FLOAT16)]

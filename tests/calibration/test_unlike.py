"""Samples set apart because they are unlike the others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calibration import open_data, split, split_unlike


def model():
    """y = x, h = -x [batch, tokens, 3]."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", "t", 3]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Neg", [x], name="neg")
    node.outputs[0].name = "h"
    out = ir.Node("", "Neg", [node.outputs[0]], name="out")
    out.outputs[0].name, out.outputs[0].dtype = "y", ir.DataType.FLOAT
    return ir.Model(ir.Graph([x], [out.outputs[0]], nodes=[node, out], opset_imports={"": 17}), ir_version=8)


def data(offsets, seed=0):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((len(offsets), 5, 3)) * 0.1
    return {"x": (rows + np.asarray(offsets)[:, None, None]).astype(np.float32)}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_far_group_is_set_apart(sign):
    offsets = np.zeros(12)
    offsets[[2, 7, 9]] = 5.0 * sign
    source = open_data(data(offsets), model())
    parts = split_unlike(model(), source, "h")
    assert parts.held_out.indices == (2, 7, 9)
    assert sorted(parts.calibration.indices + parts.held_out.indices) == list(range(12))


def test_the_order_of_samples_does_not_matter():
    arrays = data(np.linspace(0, 1, 16))
    order = np.random.default_rng(3).permutation(16)
    first = split_unlike(model(), open_data(arrays, model()), "h")
    second = split_unlike(model(), open_data({"x": arrays["x"][order]}, model()), "h")
    assert {int(order[place]) for place in second.held_out.indices} == set(first.held_out.indices)


@pytest.mark.parametrize(("count", "name"), [(6, "h"), (12, "nothing"), (12, "x")])
def test_chance_decides_where_a_direction_means_nothing(count, name):
    source = open_data(data(np.linspace(0, 1, count)), model())
    assert split_unlike(model(), source, name) == split(source)

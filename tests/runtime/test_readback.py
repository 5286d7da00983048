from __future__ import annotations

import linears
import numpy as np
import onnx_ir as ir
import pytest
import runtime_graphs

from onnxq.errors import BackendError
from onnxq.runtime import delivery
from onnxq.runtime.readback import Expected, confirm_kernels, expected_kernels, kernels_of, optimized_graph


def test_the_model_is_not_changed_and_a_file_gives_the_same_graph(tmp_path):
    model = linears.qdq(copies=2)
    before = ir.to_proto(model).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(before)
    graphs = [optimized_graph(source) for source in (model, tmp_path / "m.onnx", before)]
    assert ir.to_proto(model).SerializeToString() == before
    assert [kernels_of(graph) for graph in graphs] == [{"MatMulIntegerToFloat": 2}] * 3


def test_level_is_respected():
    from onnxq.runtime import SessionSettings

    assert kernels_of(optimized_graph(linears.qdq(), SessionSettings(level="basic"))) == {}


def test_weights_of_a_large_model_are_still_there_after_reading_back(monkeypatch):
    monkeypatch.setattr(delivery, "LARGEST_MESSAGE", 1000)
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype("f")
    model = runtime_graphs.model("g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }", w=weight)
    optimized = optimized_graph(model)
    np.testing.assert_array_equal(optimized.graph.initializers["w"].const_value.numpy(), weight)


def test_refused_model():
    with pytest.raises(BackendError, match="refuses"):
        optimized_graph(runtime_graphs.model("g (float[2] x) => (float[2] y) { y = Nope(x) }"))


def test_expected_names_node_kernels_and_weight():
    (expected,) = expected_kernels(linears.qdq())
    assert (expected.node, expected.output, expected.weight) == ("lin0", "m0", "w0")
    assert "MatMulIntegerToFloat" in expected.kernels
    (expected,) = expected_kernels(linears.qdq(weight_only=True))
    assert expected.kernels == ("MatMulNBits",)
    assert expected_kernels(linears.embedding(quantized_gather=False)) == []


def test_a_float_model_expects_nothing():
    assert expected_kernels(runtime_graphs.relu()) == []


def test_unnamed_products_are_told_by_their_weights():
    model = linears.qdq(copies=3, weight_only=True)
    for node in model.graph:
        node.name = ""
    landings = confirm_kernels(expected_kernels(model), optimized_graph(model))
    assert [landing.found for landing in landings] == ["MatMulNBits"] * 3
    assert all(landing.landed for landing in landings)


def test_a_product_that_is_gone_did_not_land():
    missing = Expected("lin9", ("MatMulIntegerToFloat",), "nowhere", "no_weight")
    (landing,) = confirm_kernels([missing], optimized_graph(linears.qdq()))
    assert not landing.landed
    assert landing.found == ""
    assert "no node" in landing.reason


def test_one_node_cannot_serve_two_products():
    (expected,) = expected_kernels(linears.qdq())
    first, second = confirm_kernels([expected, expected], optimized_graph(linears.qdq()))
    assert first.landed
    assert not second.landed

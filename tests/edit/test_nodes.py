"""Nodes that come, go and are rewired; the domains they bring."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.edit.graphs import CHAIN, FUNCTION, X, edit_of
from tests.graphs import check, model_of, node_of, ops_of, outputs_of


def test_inserted_node_carries_its_owner_and_is_in_the_journal():
    model = model_of(CHAIN)
    relu = node_of(model, "Relu")
    edit = edit_of(model)
    (value,) = edit.insert("Abs", [relu.inputs[0]], before=relu, names=["h"], like=relu.inputs[0])
    edit.rewire(relu, 0, value)
    check(model)
    made = node_of(model, "Abs")
    assert value.name == "h_1"
    assert made.metadata_props["onnxq.pass"] == "trial"
    assert [change.action for change in edit.changes] == ["insert", "rewire"]
    assert edit.changes[0].node == made.name == "h/Abs"
    assert outputs_of(model, {"x": X})["y"].tolist() == [[1, 2], [3, 4]]


def test_lent_shape_and_type_are_copies():
    model = model_of(CHAIN)
    neg = node_of(model, "Neg")
    neg.outputs[0].shape, neg.outputs[0].dtype = ir.Shape(["N", 2]), ir.DataType.FLOAT
    (value,) = edit_of(model).insert(
        "Abs", [neg.outputs[0]], before=node_of(model, "Relu"), names=["a"], like=neg.outputs[0]
    )
    value.shape[1] = 7
    value.dtype = ir.DataType.FLOAT16
    assert neg.outputs[0].shape[1] == 2
    assert neg.outputs[0].dtype != ir.DataType.FLOAT16


def test_node_that_is_read_cannot_be_removed():
    model = model_of(CHAIN)
    edit = edit_of(model)
    with pytest.raises(ValueError, match="used by"):
        edit.remove(node_of(model, "Neg"))
    check(model)


def test_remove_unused_stops_at_what_is_read():
    model = model_of("g (float[N,2] x) => (float[N,2] y) { a = Neg(x) b = Abs(a) c = Exp(b) y = Relu(a) }")
    edit_of(model).remove_unused(node_of(model, "Exp"))
    assert ops_of(model) == ["Neg", "Relu"]


def test_new_domain_is_imported_where_it_is_used():
    model = model_of(FUNCTION)
    mul = node_of(model, "Mul")
    edit_of(model).insert("Gelu", [mul.inputs[0]], before=mul, names=["g"], domain="com.microsoft")
    (function,) = model.functions.values()
    assert function.opset_imports["com.microsoft"] == model.opset_imports["com.microsoft"] == 1


def test_new_domain_in_a_branch_of_a_function_is_imported_by_the_function():
    model = model_of(
        """g (float[N,2] x, bool cond) => (float[N,2] y) { y = here.f(x, cond) }
        <domain: "here", opset_import: ["": 18]> f (a, c) => (b) {
            b = If(c) <then_branch = yes () => (t) { t = Neg(a) }, else_branch = no () => (e) { e = Abs(a) }>
        }"""
    )
    neg = node_of(model, "Neg")
    edit_of(model).insert("Gelu", [neg.inputs[0]], before=neg, names=["g"], domain="com.microsoft")
    (function,) = model.functions.values()
    assert function.opset_imports["com.microsoft"] == 1


def test_attributes_take_numpy_and_go_with_none():
    model = model_of("g (float[N,2] x) => (float[N,2] y) { y = LeakyRelu<alpha = 0.5>(x) }")
    node = node_of(model, "LeakyRelu")
    edit = edit_of(model)
    edit.set_attribute(node, "alpha", np.float64(0.25))
    check(model)
    assert outputs_of(model, {"x": X})["y"].tolist() == np.where(X > 0, X, X / 4).tolist()
    edit.set_attribute(node, "alpha", None)
    check(model)
    assert not node.attributes
    edit.insert("Softmax", node.inputs, {"axis": np.int64(-1), "left_out": None}, before=node, names=["s"])
    assert list(node_of(model, "Softmax").attributes) == ["axis"]


def test_rewire_extends_the_inputs():
    model = model_of("g (float[N,2] x) => (float[N,2] y) { y = Clip(x) }")
    clip = node_of(model, "Clip")
    edit = edit_of(model)
    edit.rewire(clip, 2, edit.constant(np.float32(2.0), "most", near=clip))
    check(model)
    assert clip.inputs[1] is None
    assert outputs_of(model, {"x": X})["y"].max() == 2


def test_nothing_is_inserted_before_a_node_that_is_gone():
    model = model_of(CHAIN)
    relu = node_of(model, "Relu")
    relu.graph.remove(relu)
    with pytest.raises(ValueError, match="in no graph"):
        edit_of(model).insert("Neg", [relu.inputs[0]], before=relu, names=["n"])

"""New constants, and what becomes of the old ones."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from tests.edit.graphs import BRANCHES, CHAIN, FUNCTION, X, edit_of
from tests.graphs import check, model_of, node_of, ops_of, outputs_of


@pytest.mark.parametrize("array", [np.float32(3.0), np.zeros(0, np.int64), np.ones((2, 1, 3), np.float16)])
def test_constant_keeps_its_shape(array):
    model = model_of(CHAIN)
    value = edit_of(model).constant(array, "c", near=node_of(model, "Relu"))
    assert tuple(value.shape) == tuple(value.const_value.shape) == np.shape(array)
    assert value.dtype == value.const_value.dtype
    assert model.graph.initializers["c"] is value


def test_constant_of_a_transposed_array_has_its_numbers():
    model = model_of(CHAIN)
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    value = edit_of(model).constant(array, "c", near=node_of(model, "Relu"))
    assert np.frombuffer(ir.to_proto(value.const_value).raw_data, np.float32).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    "dtype", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.bool_]
)
def test_constant_of_any_element_type(dtype):
    model = model_of(CHAIN)
    value = edit_of(model).constant(np.array([1, 0, 1]).astype(dtype), "c", near=node_of(model, "Relu"))
    assert ir.from_proto(ir.to_proto(model)).graph.initializers["c"].const_value.numpy().dtype == np.dtype(
        dtype
    )
    assert value.dtype == value.const_value.dtype


def test_constant_in_a_function_is_a_node_since_functions_have_no_initializers():
    model = model_of(FUNCTION)
    mul = node_of(model, "Mul")
    edit_of(model).replace_constant(mul, 1, np.float32(5.0))
    check(model)
    assert not model.graph.initializers
    assert ops_of(model) == ["f", "Constant", "Mul"], "the old Constant went with its only reader"
    assert outputs_of(ir.from_proto(ir.to_proto(model)), {"x": X})["y"].tolist() == (X * 5).tolist()


def test_constant_in_a_branch_belongs_to_the_branch():
    model = model_of(BRANCHES)
    add = node_of(model, "Add")
    edit_of(model).replace_constant(add, 1, np.array([10, 20], np.float32))
    check(model)
    assert list(add.graph.initializers) == ["w_1"]
    assert outputs_of(model, {"x": X, "cond": np.array(True)})["y"].tolist() == (-X + [10, 20]).tolist()


def test_other_readers_keep_a_replaced_constant():
    model = model_of(
        "g (float[2,2] x) => (float[2,2] y, float[2,2] z) <float[2] w ={1,2}> { y = Add(x, w) z = Mul(x, w) }"
    )
    edit_of(model).replace_constant(node_of(model, "Add"), 1, np.array([5, 5], np.float32))
    found = outputs_of(model, {"x": X})
    assert found["y"].tolist() == (X + 5).tolist()
    assert found["z"].tolist() == (X * [1, 2]).tolist()


def test_overridable_initializer_survives_losing_its_last_reader():
    model = model_of(
        "g (float[N,2] x, float[2] w) => (float[N,2] y) { y = Add(x, w) }", w=np.array([1, 2], np.float32)
    )
    assert model.graph.inputs[1].is_initializer()
    edit_of(model).replace_constant(node_of(model, "Add"), 1, np.array([5, 5], np.float32))
    assert "w" in model.graph.initializers
    assert [value.name for value in model.graph.inputs] == ["x", "w"]


def test_captured_initializer_is_read_from_inside_a_branch():
    model = model_of(BRANCHES)
    edit = edit_of(model)
    neg = node_of(model, "Neg")
    w = model.graph.initializers["w"]
    (value,) = edit.insert("Add", [neg.outputs[0], w], before=node_of(model, "If"), names=["s"])
    assert "w" in model.graph.initializers
    edit.remove_unused(value.producer())
    assert "w" in model.graph.initializers, "the branch still reads it"


def test_removing_an_if_frees_what_its_branches_captured():
    model = model_of(BRANCHES)
    edit = edit_of(model)
    node = node_of(model, "If")
    neg = node_of(model, "Neg")
    edit.replace(node.outputs[0], neg.outputs[0])
    edit.remove_unused(node)
    check(model)
    assert ops_of(model) == ["Neg"]
    assert not model.graph.initializers
    assert not neg.outputs[0].uses()


def test_constant_comes_back_when_read_again():
    model = model_of("g (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
    add = node_of(model, "Add")
    w, x = add.inputs[1], add.inputs[0]
    edit = edit_of(model)
    edit.rewire(add, 1, x)
    assert not model.graph.initializers
    (scaled,) = edit.insert("Mul", [x, w], before=add, names=["scaled"])
    edit.rewire(add, 1, scaled)
    check(model)
    assert outputs_of(model, {"x": X})["y"].tolist() == (X + X * [1, 2]).tolist()


def test_constant_node_comes_back_when_read_again():
    model = model_of(FUNCTION)
    mul = node_of(model, "Mul")
    a, c = mul.inputs
    edit = edit_of(model)
    edit.rewire(mul, 1, a)
    assert ops_of(model) == ["f", "Mul"]
    edit.rewire(mul, 1, c)
    check(model)
    assert outputs_of(ir.from_proto(ir.to_proto(model)), {"x": X})["y"].tolist() == (X * 2).tolist()


def test_removing_a_constant_node_that_went_by_itself_is_no_error():
    model = model_of(FUNCTION)
    mul, constant = node_of(model, "Mul"), node_of(model, "Constant")
    edit = edit_of(model)
    edit.replace(mul.outputs[0], mul.inputs[0])
    edit.remove(mul)
    edit.remove(constant)
    check(model)
    assert ops_of(model) == ["f", "Identity"]

"""The editor keeps graphs whole, whatever a pass does with it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxq.edit import Edit, label_of
from tests.graphs import check, model_of, node_of, ops_of, outputs_of

X = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)
CHAIN = "g (float[N,2] x) => (float[N,2] y) { h = Neg(x) y = Relu(h) }"
FUNCTION = """g (float[N,2] x) => (float[N,2] y) { y = here.f(x) }
<domain: "here", opset_import: ["": 18]> f (a) => (b) { c = Constant<value = float {2.0}>() b = Mul(a, c) }"""
BRANCHES = """g (float[N,2] x, bool cond) => (float[N,2] y) <float[2] w = {1, 2}> {
    h = Neg(x)
    y = If(cond) <
        then_branch = yes () => (float[N,2] t) { t = Add(h, w) },
        else_branch = no () => (float[N,2] e) <float[2] v = {3, 4}> { e = Mul(x, v) }
    >
}"""


def edit_of(model: ir.Model) -> Edit:
    return Edit(model, "trial")


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


def test_wrapping_a_value_closes_no_cycle():
    model = model_of(CHAIN)
    h = node_of(model, "Neg").outputs[0]
    edit = edit_of(model)
    (twice,) = edit.insert("Add", [h, h], before=node_of(model, "Relu"), names=["twice"])
    (wrapped,) = edit.insert("Abs", [twice], before=node_of(model, "Relu"), names=["wrapped"])
    edit.replace(h, wrapped)
    check(model)
    assert outputs_of(model, {"x": X})["y"].tolist() == np.abs(2 * X).tolist()


def test_wrapping_an_output_keeps_its_name_on_the_outside():
    model = model_of(CHAIN)
    y = node_of(model, "Relu").outputs[0]
    edit = edit_of(model)
    graph_end = node_of(model, "Relu")
    (wrapped,) = edit.insert("Neg", [y], before=graph_end, names=["wrapped"])
    wrapped.producer().graph.remove(wrapped.producer())
    model.graph.append(wrapped.producer())
    edit.replace(y, wrapped)
    check(model)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert outputs_of(model, {"x": X})["y"].tolist() == [[-0.0, -2.0], [-0.0, -0.0]]


@pytest.mark.parametrize(
    ("body", "new"),
    [
        ("g (float[N,2] x) => (float[N,2] y) { y = Identity(x) }", "x"),
        ("g (float[N,2] x) => (float[N,2] y, float[N,2] z) { z = Neg(x) y = Identity(z) }", "z"),
        ("g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}> { y = Identity(w) }", "w"),
    ],
    ids=["input", "another output", "initializer"],
)
def test_replaced_output_keeps_its_name_where_the_new_value_has_one_to_keep(body, new):
    model = model_of(body)
    expected = outputs_of(model, {"x": X})
    node = node_of(model, "Identity")
    edit = edit_of(model)
    edit.replace(node.outputs[0], node.inputs[0])
    edit.remove(node)
    check(model)
    assert outputs_of(model, {"x": X}).keys() == expected.keys()
    assert all(np.array_equal(outputs_of(model, {"x": X})[name], array) for name, array in expected.items())
    assert node.op_type in ops_of(model), f"{new} cannot carry the name itself"


def test_replaced_output_hands_its_name_to_an_inner_value():
    model = model_of("g (float[N,2] x) => (float[N,2] y) { h = Neg(x) y = Identity(h) }")
    node = node_of(model, "Identity")
    edit = edit_of(model)
    model.graph.outputs[0].metadata_props["note"] = "kept"
    edit.replace(node.outputs[0], node.inputs[0])
    edit.remove(node)
    check(model)
    assert ops_of(model) == ["Neg"]
    (output,) = model.graph.outputs
    assert (output.name, output.metadata_props["note"]) == ("y", "kept")
    assert str(output.shape) == "[N,2]"


def test_copy_of_an_output_computed_later_is_put_after_it():
    model = model_of("g (float[N,2] x) => (float[N,2] y, float[N,2] z) { y = Neg(x) z = Abs(x) }")
    edit = edit_of(model)
    y, z = model.graph.outputs
    edit.replace(y, z)
    edit.remove(node_of(model, "Neg"))
    check(model)
    found = outputs_of(model, {"x": X})
    assert found["y"].tolist() == found["z"].tolist() == np.abs(X).tolist()


def test_replacing_a_branch_output_by_an_outer_value():
    model = model_of(BRANCHES)
    add = node_of(model, "Add")
    edit = edit_of(model)
    edit.replace(add.outputs[0], add.inputs[0])
    edit.remove(add)
    check(model)
    assert outputs_of(model, {"x": X, "cond": np.array(True)})["y"].tolist() == (-X).tolist()
    assert not model.graph.initializers


def test_replacing_a_value_that_a_branch_captures():
    model = model_of(BRANCHES)
    neg = node_of(model, "Neg")
    edit = edit_of(model)
    edit.replace(neg.outputs[0], neg.inputs[0])
    edit.remove(neg)
    check(model)
    assert outputs_of(model, {"x": X, "cond": np.array(True)})["y"].tolist() == np.add(X, [1, 2]).tolist()


def test_output_that_is_an_input_cannot_be_replaced():
    model = model_of("g (float[N,2] x) => (float[N,2] x, float[N,2] y) { y = Neg(x) }")
    with pytest.raises(ValueError, match="'x'"):
        edit_of(model).replace(model.graph.inputs[0], node_of(model, "Neg").outputs[0])


def test_replacing_a_value_by_itself_is_nothing():
    model = model_of(CHAIN)
    edit = edit_of(model)
    h = node_of(model, "Neg").outputs[0]
    edit.replace(h, h)
    edit.rewire(node_of(model, "Relu"), 0, h)
    assert not edit.changes


def test_renaming_leaves_tensors_that_a_copy_shares():
    model = model_of(
        "g () => (float[2] y, float[2] z) { y = Constant<value = float[2] {1, 2}>() z = Identity(y) }"
    )
    y = node_of(model, "Constant").outputs[0]
    y.const_value = ir.tensor(np.array([1, 2], np.float32), name="y")
    copy = model.clone()
    edit = edit_of(model)
    (new,) = edit.insert("Abs", [y], before=node_of(model, "Identity"), names=["new"])
    edit.replace(y, new)
    assert node_of(copy, "Constant").outputs[0].const_value.name == "y"


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


def test_names_inside_functions_and_branches_are_taken():
    model = model_of(BRANCHES)
    edit = edit_of(model)
    assert [edit.unique(name) for name in ("v", "t", "w", "cond", "fresh")] == [
        "v_1",
        "t_1",
        "w_1",
        "cond_1",
        "fresh",
    ]
    assert [edit.unique("v"), edit.unique("v_1")] == ["v_2", "v_1_1"]
    function = edit_of(model_of(FUNCTION))
    assert [function.unique(name) for name in ("a", "b", "c")] == ["a_1", "b_1", "c_1"]


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


def test_label_of_a_nameless_node_is_its_output():
    model = model_of(CHAIN)
    assert label_of(node_of(model, "Neg")) == "h"
    node_of(model, "Neg").name = "first"
    assert label_of(node_of(model, "Neg")) == "first"


def test_renamed_value_frees_its_name_for_what_takes_its_place():
    model = model_of(CHAIN)
    relu, neg = node_of(model, "Relu"), node_of(model, "Neg")
    edit = edit_of(model)
    edit.rename(neg.outputs[0], "h_scaled")
    (restored,) = edit.insert("Abs", [neg.outputs[0]], before=relu, names=["h"])
    edit.rewire(relu, 0, restored)
    check(model)
    assert (neg.outputs[0].name, restored.name) == ("h_scaled", "h")
    assert outputs_of(model, {"x": X})["y"].tolist() == np.abs(X).tolist()


def test_names_that_callers_use_are_not_renamed():
    model = model_of(CHAIN)
    edit = edit_of(model)
    for value in (model.graph.inputs[0], model.graph.outputs[0]):
        with pytest.raises(ValueError, match="not ours"):
            edit.rename(value, "other")


def test_name_is_free_only_when_its_last_bearer_has_gone():
    """Two branches may use one name; a value outside of them may not."""
    model = model_of(
        """g (float[N,2] x, bool cond) => (float[N,2] y) {
            y = If(cond) <
                then_branch = yes () => (float[N,2] t) { h = Neg(x) k = Exp(x) t = Abs(x) },
                else_branch = no () => (float[N,2] e) { h = Neg(x) e = Abs(h) }
            >
        }"""
    )
    edit = edit_of(model)
    first, second = (node for node in model.graph.all_nodes() if node.op_type == "Neg")
    edit.remove(first)
    edit.remove(node_of(model, "Exp"))
    assert [edit.unique(name) for name in ("k", "h")] == ["k", "h_1"]
    assert second.outputs[0].name == "h"

"""Letting others read another value: wrapping, handing names over, graph outputs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.edit.graphs import BRANCHES, CHAIN, X, edit_of
from tests.graphs import check, model_of, node_of, ops_of, outputs_of


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


@pytest.mark.parametrize("name", ["h", "y"], ids=["an inner value", "an output"])
def test_what_is_handed_over_keeps_its_readers_and_gives_its_name(name):
    model = model_of("g (float[N,2] x) => (float[N,2] y, float[N,2] z) { h = Neg(x) y = Abs(h) z = Exp(y) }")
    expected = outputs_of(model, {"x": X})
    old = next(out for node in model.graph for out in node.outputs if out.name == name)
    readers = {node.op_type for node in old.consumers()}
    edit = edit_of(model)
    (new,) = edit.insert("Identity", [old], before=node_of(model, "Exp"), names=["new"], like=old)
    edit.hand_over(old, new, "moved")
    check(model)
    assert (old.name, new.name, old.is_graph_output()) == ("moved", name, False)
    assert {node.op_type for node in old.consumers()} == {*readers, "Identity"}
    assert new.is_graph_output() == (name == "y")
    assert outputs_of(model, {"x": X}).keys() == expected.keys()
    assert all(np.array_equal(outputs_of(model, {"x": X})[each], array) for each, array in expected.items())


def test_the_input_of_a_graph_hands_nothing_over():
    model = model_of(CHAIN)
    edit = edit_of(model)
    with pytest.raises(ValueError, match="not ours"):
        edit.hand_over(model.graph.inputs[0], node_of(model, "Neg").outputs[0], "other")

"""Names: unique, renamed, handed over."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.edit import label_of
from tests.edit.graphs import BRANCHES, CHAIN, FUNCTION, X, edit_of
from tests.graphs import check, model_of, node_of, outputs_of


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

"""Passes that raise, and passes over whole models, which are not taken at their word."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.errors import PassFailed, UnsupportedModel
from onnxq.pipeline import apply_pass, run
from tests.graphs import model_of, node_of, ops_of
from tests.pipeline.passes import NEGATIONS, DropDoubleNegation, Renaming, Transforming


@pytest.mark.parametrize("where", ["match", "rewrite"])
def test_raising_pass_is_named_with_its_node_and_leaves_the_model(where):
    class Raising(Renaming):
        pass

    def fail(self, *_):
        raise KeyError("gone")

    setattr(Raising, where, fail)
    model = model_of(NEGATIONS)
    before = ir.to_proto(model)
    with pytest.raises(PassFailed, match=r"'renaming' failed at node '[ay]': KeyError") as caught:
        apply_pass(model, Raising())
    assert isinstance(caught.value.__cause__, KeyError)
    assert ir.to_proto(model) == before
    result = run(model, [Raising(), DropDoubleNegation()], verify="never")
    assert "KeyError" in result.rolled_back["renaming"]
    assert ops_of(result.model) == ["Relu"], "the next pass goes on"
    with pytest.raises(PassFailed):
        run(model, [Raising()], verify="never", strict=True)


def test_raising_model_pass_is_named():
    def fail(model):
        model.graph.outputs.clear()
        raise RuntimeError("half way")

    model = model_of(NEGATIONS)
    with pytest.raises(PassFailed, match="'transforming' failed: RuntimeError: half way"):
        apply_pass(model, Transforming(fail))
    assert len(model.graph.outputs) == 1


def test_model_pass_may_leave_a_model_alone_and_say_why():
    def refuse(model):
        raise UnsupportedModel("not this one", slug="no")

    result = apply_pass(model_of(NEGATIONS), Transforming(refuse))
    assert not result.modified
    assert [reject.reason for reject in result.rejects] == ["not this one"]


def test_model_pass_is_not_asked_whether_it_changed_anything():
    model = model_of(NEGATIONS, w=np.ones(4, np.float32))

    def same(model):
        return ir.from_proto(ir.to_proto(model))

    def rename(model):
        node_of(model, "Relu").name = "last"

    def reweigh(model):
        model.graph.initializers["w"].const_value = ir.tensor(np.zeros(4, np.float32), name="w")

    def attribute(model):
        node_of(model, "Relu").attributes["alpha"] = ir.AttrFloat32("alpha", 0.5)

    assert not apply_pass(model, Transforming(same)).changes
    assert [change.node for change in apply_pass(model, Transforming(rename)).changes] == ["y", "last"]
    assert [change.detail for change in apply_pass(model, Transforming(reweigh)).changes] == ["w"]
    assert [change.action for change in apply_pass(model, Transforming(attribute)).changes] == ["transform"]

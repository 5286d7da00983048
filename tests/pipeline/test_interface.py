"""What every pass must leave alone: a valid graph and the interface of the model."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.pipeline import broken_promise, checker_complaint, run, signature_of
from tests.graphs import model_of, node_of
from tests.pipeline.passes import NEGATIONS, DropDoubleNegation, Renaming, Transforming


def set_(model, path, value):
    *way, last = path.split(".")
    for name in way:
        model = getattr(model, name)
    setattr(model, last, value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda model: set_(model.graph.inputs[0], "name", "z"), "inputs were x; now z"),
        (
            lambda model: model.graph.outputs.append(node_of(model, "Relu").inputs[0]),
            "outputs were y; now y, d",
        ),
        (lambda model: set_(model.graph.outputs[0], "shape", ir.Shape([3, 4])), "was of shape"),
        (lambda model: set_(model.graph.outputs[0], "shape", ir.Shape(["m", 4])), "was of shape"),
        (lambda model: set_(model.graph.outputs[0], "shape", None), "was of shape"),
        (lambda model: set_(model.graph.inputs[0], "dtype", ir.DataType.FLOAT16), "was of type"),
        (lambda model: model.metadata_props.clear(), "metadata 'author' changed or went"),
        (lambda model: model.metadata_props.update(author="other"), "metadata 'author' changed or went"),
        (lambda model: model.opset_imports.update({"": 19}), "opset of domain 'ai.onnx' was 18; now 19"),
        (lambda model: model.opset_imports.update({"": 17}), "opset of domain 'ai.onnx' was 18; now 17"),
        (lambda model: set_(node_of(model, "Relu"), "op_type", "NoSuchOperator"), "the ONNX checker refuses"),
    ],
)
def test_broken_interface_is_rolled_back(change, complaint):
    model = model_of(NEGATIONS)
    model.metadata_props["author"] = "someone"
    result = run(model, [Transforming(change)], verify="never")
    assert complaint in result.rolled_back["transforming"]
    assert ir.to_proto(result.model) == ir.to_proto(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.metadata_props.update(made="by"),
        lambda model: model.opset_imports.update({"com.microsoft": 1}),
        lambda model: set_(model.graph.outputs[0], "shape", ir.Shape(["n", 4])),
    ],
)
def test_additions_are_no_broken_interface(change):
    model = model_of(NEGATIONS.replace("float[n,4] y", "float[?,4] y"))
    assert not run(model, [Transforming(change)], verify="never").rolled_back


def test_opset_may_be_raised_by_a_pass_that_says_so():
    class Upgrading(Transforming):
        raises_opset: ClassVar[bool] = True

    result = run(
        model_of(NEGATIONS), [Upgrading(lambda model: model.opset_imports.update({"": 21}))], verify="never"
    )
    assert result.model.opset_imports[""] == 21


def test_default_of_an_input_is_part_of_the_interface():
    model = model_of("g (float[4] x, float[4] w) => (float[4] y) { y = Add(x, w) }", w=np.ones(4, np.float32))
    assert [port.optional for port in signature_of(model).inputs] == [False, True]

    def freeze(model):
        del model.graph.initializers["w"]

    result = run(model, [Transforming(freeze)], verify="never")
    assert "lost its default" in result.rolled_back["transforming"]


def test_checker_needs_no_weights_and_forgives_what_was_wrong_before():
    big = np.zeros((2048, 1024), np.float32)
    model = model_of(
        "g (float[n,2048] x) => (float[n,1024] y) { a = Neg(x) b = Neg(a) y = MatMul(b, w) }", w=big
    )
    assert checker_complaint(model) == ""
    assert run(model, [DropDoubleNegation()], verify="never").results[0].modified
    odd = model_of("g (float[n,4] x) => (float[n,4] y) { a = Neg(x) b = Neg(a) y = Relu<no_such = 1>(b) }")
    assert "no_such" in checker_complaint(odd)
    assert run(odd, [DropDoubleNegation()], verify="never").results[0].modified


def test_broken_promise_of_nothing_is_nothing():
    model = model_of(NEGATIONS)
    assert broken_promise(model, model.clone(), Renaming()) == ""

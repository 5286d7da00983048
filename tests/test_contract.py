"""Examples become models, and passes see the operator set of the place they look at."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnxq.contract import Context, Example, ModelPass, Needs, Pass
from tests.graphs import check, model_of, outputs_of

X = np.array([[1.0, -2.0]], np.float32)


def test_example_gets_constants_that_its_text_does_not_declare():
    model = model_of("g (float[n,2] x) => (float[n,2] y) { y = Add(x, w) }", w=np.array([3, 4], np.float32))
    check(model)
    assert outputs_of(model, {"x": X})["y"].tolist() == [[4, 2]]


@pytest.mark.parametrize("declared", ["<float[2] w>", "<float[2] w = {9, 9}>"])
def test_constants_of_an_example_go_before_what_its_text_says(declared):
    model = model_of(
        f"g (float[n,2] x) => (float[n,2] y) {declared} {{ y = Add(x, w) }}", w=np.ones(2, np.float32)
    )
    check(model)
    assert outputs_of(model, {"x": X})["y"].tolist() == [[2, -1]]


def test_constant_that_is_an_input_is_its_default():
    model = model_of(
        "g (float[n,2] x, float[2] w) => (float[n,2] y) { y = Add(x, w) }", w=np.ones(2, np.float32)
    )
    assert [value.is_initializer() for value in model.graph.inputs] == [False, True]


def test_constants_of_an_example_may_be_of_narrow_types():
    model = model_of("g () => (bfloat16[2] y) { y = Identity(w) }", w=np.ones(2, ml_dtypes.bfloat16))
    assert model.graph.initializers["w"].const_value.numpy().dtype == ml_dtypes.bfloat16


def test_every_call_makes_a_model_of_its_own():
    example = Example(
        '<ir_version: 10, opset_import: ["": 18]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    )
    assert example.model() is not example.model()


def test_text_that_is_no_graph_is_refused():
    with pytest.raises(onnx.parser.ParseError):
        Example("no graph").model()


def test_context_tells_the_opset_of_the_function_in_hand():
    model = model_of("g (float[n,2] x) => (float[n,2] y) { y = Neg(x) }")
    assert Context(model).opset == 18
    assert Context(model, opsets={"": 13}).opset == 13
    assert Context(model, opsets={"here": 1}).opset == 1


def test_passes_must_say_how_they_match_and_rewrite():
    with pytest.raises(TypeError):
        Pass()
    with pytest.raises(TypeError):
        ModelPass()
    assert Pass.needs == Needs()
    assert not Pass.raises_opset


def test_data_of_the_contract_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Needs().opset = 2

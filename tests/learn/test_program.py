"""A graph as a function of torch: whole, in part, with hooks and other weights, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxq.errors import BackendError, UnsupportedModel, UsageProblem
from onnxq.learn.program import Changes, Program
from onnxq.passes.clean import cleaning
from onnxq.pipeline import run
from tests.graphs import model_of, outputs_of
from tests.learn.models import TRANSFORMERS, feeds_for, transformer

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
CHAIN = """chain (float[2,3] x) => (float[2,3] y) <float[3,3] w> {
    a = Relu(x) b = MatMul(a, w) c = Tanh(b) y = Add(c, a) }"""
W = np.arange(9, dtype=np.float32).reshape(3, 3) / 9


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_compute_what_the_runtime_computes(name):
    model = transformer(name)
    feeds = feeds_for(model, 1)
    for each in (model, run(model, cleaning(), verify="never").model):
        wanted, got = outputs_of(each, feeds), Program(each)(feeds)
        for key, array in wanted.items():
            np.testing.assert_allclose(got[key], array, atol=2e-5)


def test_a_part_starts_from_what_it_is_given():
    part = Program(model_of(CHAIN, w=W), ["c"], given=["a"])
    assert part.inputs == ("a",)
    np.testing.assert_allclose(part({"a": X})["c"], np.tanh(X @ W), rtol=1e-6)


def test_what_bypasses_the_given_value_comes_from_the_inputs():
    part = Program(model_of(CHAIN, w=W), ["y"], given=["b"])
    assert part.inputs == ("x", "b")
    np.testing.assert_allclose(part({"x": X, "b": X})["y"], np.tanh(X) + np.maximum(X, 0), rtol=1e-6)


def test_an_initializer_is_replaced_by_name():
    got = Program(model_of(CHAIN, w=W))({"x": X}, Changes(parameters={"w": torch.zeros(3, 3)}))
    np.testing.assert_allclose(got["y"], np.maximum(X, 0))


def test_a_hook_on_a_value_reaches_all_readers_and_one_on_a_read_reaches_one():
    model = model_of(CHAIN, w=W)
    product = next(node for node in model.graph if node.op_type == "MatMul")
    program, relu = Program(model), np.maximum(X, 0)
    everywhere = program({"x": X}, Changes(values={"a": lambda a: 2 * a}))["y"]
    np.testing.assert_allclose(everywhere, np.tanh(2 * relu @ W) + 2 * relu, rtol=1e-6)
    label = product.name or product.outputs[0].name
    there = program({"x": X}, Changes(reads={(label, 0): lambda a: 2 * a}))["y"]
    np.testing.assert_allclose(there, np.tanh(2 * relu @ W) + relu, rtol=1e-6)


def test_readers_with_one_hook_share_one_call():
    model = model_of("twice (float[2,3] x) => (float[2,3] y) { a = Neg(x) b = Abs(x) y = Add(a, b) }")
    calls = []

    def hook(x):
        calls.append(x)
        return x

    Program(model)({"x": X}, Changes(reads={("a", 0): hook, ("b", 0): hook}))
    assert len(calls) == 1


def test_weights_are_left_as_they_were():
    model = model_of(CHAIN, w=W)
    program = Program(model)
    program({"x": X}, Changes(values={"w": lambda w: w + 1}))
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), W)


def test_an_unknown_operator_is_named_with_a_way_out():
    with pytest.raises(UnsupportedModel, match=r"'y'.*DynamicQuantizeLinear") as caught:
        Program(model_of("q (float[2] x) => (uint8[2] y) { y, s, z = DynamicQuantizeLinear(x) }"))
    assert caught.value.hint
    assert caught.value.slug == "no-gradient-rule"


def test_what_is_wrong_with_a_run_is_said():
    program = Program(model_of(CHAIN, w=W))
    with pytest.raises(BackendError, match="no array for"):
        program({})
    with pytest.raises(BackendError, match="MatMul"):
        program({"x": np.ones((2, 4), np.float32)})
    with pytest.raises(UsageProblem, match="no value named 'nothing'"):
        Program(model_of(CHAIN, w=W), ["nothing"])


OPERATIONS = {
    "gelu": 'y = Gelu<approximate="tanh">(x)',
    "layer norm": "y = LayerNormalization(x, s, s)",
    "spelled norm": """m = ReduceMean<keepdims=1>(x, axis) c = Sub(x, m) two = Constant<value_float=2.0>()
        two64 = CastLike(two, x) q = Pow(c, two64) v = ReduceMean<keepdims=1>(q, axis) r = Sqrt(v)
        y = Div(c, r)""",
    "softmax": "y = Softmax(x)",
    "gather": "y = Gather<axis=1>(x, places)",
    "slice backwards": "y = Slice(x, minus, minus4, axis, minus)",
    "where": "n = Neg(x) b = Less(x, n) y = Where(b, x, n)",
    "einsum": 'y = Einsum<equation="ij,kj->ik">(x, x)',
    "gemm": "y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, x, one)",
    "cumulate": "y = CumSum<reverse=1, exclusive=1>(x, scalar)",
    "resize": """four = Unsqueeze(x, front) big = Resize<mode="linear">(four, , factors) y = Mul(big, big)""",
    "norm": "y = ReduceL2(x)",
}
CONSTANTS = {
    "s": np.array([1.0, 0.5, 2.0]),
    "one": np.ones(1),
    "axis": np.array([1]),
    "minus": np.array([-1]),
    "minus4": np.array([-4]),
    "places": np.array([[2, 0], [-1, 2]]),
    "scalar": np.array(1),
    "front": np.array([0, 1]),
    "factors": np.array([1, 1, 2, 2], np.float32),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_agree_with_finite_differences(name):
    body = OPERATIONS[name].replace("IsNaNguard", "")
    used = {key: value for key, value in CONSTANTS.items() if f"{key})" in body or f"{key}," in body}
    opset = 20 if name == "gelu" else 18
    program = Program(graph(body, opset, used))
    start = torch.tensor([[0.3, -0.7, 1.1], [0.9, 0.2, -0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: program({"x": x})["y"], (start,))


def graph(body: str, opset: int, constants: dict[str, np.ndarray]):
    model = model_of(f"g (double[2,3] x) => (double[N,M] y) {{ {body} }}", **constants)
    model.opset_imports[""] = opset
    return model

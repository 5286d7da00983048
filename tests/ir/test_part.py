"""Columns that a Split or Slice cuts out of a linear: where they are, and who else reads them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.part import Part, part_giving, parts_of
from tests.graphs import model_of, outputs_of

C = 9
"""Columns of the linear."""
WHOLE = "m = MatMul(x, w) f = Add(m, b)"
CUTS = {
    "all of it": ("p = Identity(f)", None),
    "by sizes": ("a, p, c = Split<axis = -1>(f, sizes)", (2, 4)),
    "by a number of parts": ("a, p, c = Split<axis = -1, num_outputs = 3>(f)", (3, 3)),
    "the last and smaller part": ("a, c, d, e, p = Split<axis = -1, num_outputs = 5>(f)", (8, 1)),
    "by a slice": ("p = Slice(f, two, seven, last)", (2, 5)),
    "by a slice with a step of one": ("p = Slice(f, two, seven, last, one)", (2, 5)),
    "from the end": ("p = Slice(f, minus, far, last)", (6, 3)),
    "nothing": ("p = Slice(f, seven, two, last)", (7, 0)),
    "every second": ("p = Slice(f, one, far, last, two)", None),
    "tokens": ("p = Slice(f, one, far, first)", None),
    "by a size that is computed": ("n = Shape<start = 1>(x) p = Slice(f, one, n, last)", None),
    "of two axes": ("p = Slice(f, both, fars, axes)", None),
}  # fmt: skip


def made(cut: str, outputs: str = "float[N,K] p", whole: str = WHOLE) -> ir.Model:
    random = np.random.default_rng(0)
    numbers = {"sizes": [2, 4, 3], "one": [1], "two": [2], "seven": [7], "minus": [-3], "far": [2**63 - 1]}
    numbers |= {"last": [-1], "first": [0], "both": [0, 1], "fars": [9, 4], "axes": [0, 1]}
    arrays = {name: np.array(array) for name, array in numbers.items()}
    arrays |= {name: random.normal(size=size).astype(np.float32) for name, size in (("w", (5, C)), ("b", C))}
    body = f"{whole} {cut}"
    used = {name: array for name, array in arrays.items() if f"{name})" in body or f"{name}," in body}
    return model_of(f"g (float[N,5] x) => ({outputs}) {{ {body} }}", **used)


def value_of(model: ir.Model, name: str) -> ir.Value:
    return next(out for node in model.graph for out in node.outputs if out.name == name)


@pytest.mark.parametrize("name", CUTS)
def test_a_part_is_the_columns_that_it_says(name):
    cut, place = CUTS[name]
    model = made(cut)
    found = part_giving(value_of(model, "p"))
    assert (None if found is None else (found.start, found.width)) == place
    if found is None:
        return
    x = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    given = outputs_of(model, {"x": x})["p"]
    np.testing.assert_allclose(x @ found.weight + found.bias, given, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.linear.weight[:, found.columns], found.weight)
    assert [part.value for part in parts_of(linear_of(model))][1:].count(found.value) == 1


def linear_of(model: ir.Model) -> Linear:
    (linear,) = [found for node in model.graph if isinstance(found := find_linear(node), Linear)]
    return linear


def test_a_linear_is_a_part_of_itself_without_a_bias_too():
    model = made("p = Relu(f)", whole="f = MatMul(x, w)")
    found = part_giving(value_of(model, "f"))
    assert isinstance(found, Part)
    assert (found.start, found.width, found.bias) == (0, C, None)
    assert found.is_exclusive()


@pytest.mark.parametrize(
    ("rest", "outputs", "alone"),
    [
        ("p = Tanh(t)", "float[N,K] p", True),
        ("p = Tanh(t) k = Slice(f, seven, far, last) o = Tanh(k)", "float[N,K] p, float[N,K] o", True),
        ("p = Tanh(t) s = Shape(f)", "float[N,K] p, int64[2] s", True),
        ("p = Tanh(t) k = Slice(f, one, far, last) o = Tanh(k)", "float[N,K] p, float[N,K] o", False),
        ("p = Tanh(t) o = Tanh(f)", "float[N,K] p, float[N,K] o", False),
        ("p = Tanh(t)", "float[N,K] p, float[N,9] f", False),
        ("p = Tanh(t)", "float[N,K] p, float[N,K] t", False),
        ("p = Add(t, t)", "float[N,K] p", False),
    ],
    ids=["alone", "others", "its shape", "overlapping", "all", "output", "part as output", "twice"],
)
def test_whoever_reads_the_same_columns_is_seen(rest, outputs, alone):
    model = made(f"t = Slice(f, two, seven, last) {rest}", outputs)
    found = part_giving(value_of(model, "t"))
    assert found is not None
    assert found.is_exclusive() == alone

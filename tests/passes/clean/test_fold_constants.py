"""Folding stays within its bounds, and off what callers set."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.passes.clean.evidence import graph
from onnxq.passes.clean.fold_constants import GROWS, FoldConstants
from tests.passes.clean.rewriting import assert_same_bits, ops_of, read, rewrite


def with_weight(text: str, array: np.ndarray) -> ir.Model:
    """The model with an initializer `w`, declared in the text as an input."""
    model = read(text)
    value = next(value for value in model.graph.inputs if value.name == "w")
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(array, name="w")
    model.graph.register_initializer(value)
    return model


def size_of(model: ir.Model) -> int:
    return len(ir.to_proto(model).SerializeToString())


WEIGHT = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)


def test_a_weight_that_only_the_folded_node_reads_is_folded_whatever_its_size():
    text = graph("t = Transpose(w)  y = MatMul(x, t)", "float[N,48] x, float[64,48] w", "float[N,64] y")
    before = with_weight(text, WEIGHT)
    result = rewrite(FoldConstants(growth=0), before)
    assert ops_of(result.model) == ["MatMul"]
    assert size_of(result.model) <= size_of(before)
    assert_same_bits(before, result.model)


def test_a_weight_that_others_read_too_is_not_doubled():
    text = graph(
        "t = Transpose(w)  a = MatMul(x, t)  y = MatMul(a, w)",
        "float[N,48] x, float[64,48] w",
        "float[N,48] y",
    )
    result = rewrite(FoldConstants(), with_weight(text, WEIGHT))
    assert not result.modified
    assert GROWS in result.rejects[0].reason
    assert rewrite(FoldConstants(growth=WEIGHT.nbytes), with_weight(text, WEIGHT)).modified


def test_a_half_precision_weight_is_not_swollen_to_float():
    text = graph("t = Cast<to = 1>(w)  y = MatMul(x, t)", "float[N,64] x, float16[64,48] w", "float[N,48] y")
    result = rewrite(FoldConstants(), with_weight(text, WEIGHT.astype(np.float16)))
    assert not result.modified
    assert GROWS in result.rejects[0].reason


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("s = Shape(x)  d = Gather(s, i)  t = Concat<axis = 0>(d, n)  y = Reshape(x, t)", ["Reshape"]),
        ("s = Shape(x)  d = Slice(s, i, m)  t = Concat<axis = 0>(n, d)  y = Reshape(x, t)", ["Reshape"]),
        (
            "s = Shape(x)  d = Gather(s, o)  t = Concat<axis = 0>(d, n)  y = Reshape(x, t)",
            ["Shape", "Gather", "Concat", "Reshape"],
        ),
    ],
)
def test_known_sizes_of_a_partly_known_shape_are_constants(body, left):
    constants = "int64[1] i = {1}, int64[1] m = {3}, int64[1] n = {-1}, int64[1] o = {0}"
    before = read(
        graph(body, "float[N,4,2] x", "float[A,B] y", constants=constants.replace("m = {3}", "m = {2}"))
    )
    result = rewrite(FoldConstants(), before)
    assert ops_of(result.model) == left
    assert_same_bits(before, result.model)


def test_a_wrong_description_of_a_value_is_not_made_worse():
    # The model says that `d` is float, which no runtime will accept; folding must not hide it.
    text = graph(
        "d = Add(v, v)  y = Add(x, d)",
        "int64[4] x",
        "int64[4] y",
        constants="int64[4] v = {1, 2, 3, 4}, float[4] d",
    )
    assert not rewrite(FoldConstants(), read(text)).modified


def test_a_result_for_the_outside_stays_a_node():
    text = graph("y = Add(v, v)", outputs="float[4] y", constants="float[4] v = {1, 2, 3, 4}")
    assert not rewrite(FoldConstants(), read(text)).modified


def test_a_constant_read_by_a_branch_is_folded_for_it_too():
    text = graph(
        """s = Add(v, v)
           y = If(c) <then_branch = t () => (float[N,4] p) { p = Mul(x, s) },
                      else_branch = e () => (float[N,4] q) { r = Neg(s)  q = Mul(x, r) }>""",
        "float[N,4] x, bool c",
        constants="float[4] v = {1, 2, 3, 4}",
    )
    before = read(text)
    after = rewrite(FoldConstants(), before).model
    assert ops_of(after) == ["If", "Mul", "Mul"]
    assert_same_bits(before, after)

"""Activations of a float model that are rounded on demand."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.passes.quantize.ranges import params_for
from onnxq.planning.switches import SwitchedModel
from onnxq.runtime import open_session
from tests.graphs import model_of

K, N = 24, 16
RANGES = {"x": (-0.5, 1.5), "a": (0.0, 0.7)}
RANDOM = np.random.default_rng(0)
FIRST, SECOND, THIRD = (
    RANDOM.integers(-8, 9, size=shape).astype(np.float32) / 32 for shape in ((K, N), (N, K), (K, N))
)
X = RANDOM.integers(-32, 33, size=(2, 5, K)).astype(np.float32) / 16
"""Numbers whose sums are exact in float32, so that no order of summing flips a code."""


def network():
    """Two linears read x, one reads a; something else reads x too."""
    before = "h = MatMul(x, first) g = MatMul(x, third) s = Add(h, g)"
    behind = "a = Relu(s) m = MatMul(a, second) y = Add(m, x)"
    text = f"g (float[B,S,{K}] x) => (float[B,S,{K}] y) {{ {before} {behind} }}"
    return model_of(text, first=FIRST, second=SECOND, third=THIRD)


def expected(rounded: tuple[str, ...]) -> np.ndarray:
    def seen(name: str, values: np.ndarray) -> np.ndarray:
        return params_for(*RANGES[name]).apply(values) if name in rounded else values

    x = seen("x", X)
    return seen("a", np.maximum(x @ FIRST + x @ THIRD, 0)) @ SECOND + X


@pytest.mark.parametrize("rounded", [(), ("x",), ("a",), ("x", "a")])
def test_linears_alone_read_what_is_rounded_on_demand(rounded):
    outputs = SwitchedModel(network(), RANGES).run({"x": X}, rounded)
    np.testing.assert_allclose(outputs["y"], expected(rounded), rtol=0, atol=2e-6)


def test_switches_are_where_there_is_a_range_and_the_model_stays_as_it_is():
    model = network()
    assert SwitchedModel(model, {"a": RANGES["a"], "elsewhere": (0.0, 1.0)}).activations == ("a",)
    assert [value.name for value in model.graph.inputs] == ["x"]
    np.testing.assert_allclose(open_session(model).run({"x": X})["y"], expected(()), rtol=0, atol=2e-6)


def test_products_in_other_types_have_no_switch():
    text = f"g (double[B,{K}] x) => (double[B,{N}] y) {{ y = MatMul(x, first) }}"
    assert not SwitchedModel(model_of(text, first=FIRST.astype(np.float64)), RANGES).activations

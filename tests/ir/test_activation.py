"""Activations are recognised by what they compute, in any spelling, and nothing else is."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxq.ir.activation import Activation, find_activation, find_gelu, find_silu
from onnxq.ir.walk import nodes

ROOT, RECIPROCAL = 2**0.5, 2**-0.5
INSIDE = (2 / math.pi) ** 0.5

ERF = "d = Div(x, root) e = Erf(d) a = Add(e, one) "
CUBE = "c = Pow(x, three) "
TANH = CUBE + "k = Mul(c, cubic) i = Add(x, k) t = Mul(i, inside) e = Tanh(t) a = Add(e, one) "

SPELLINGS = {
    "gelu-erf": [
        ERF + "p = Mul(x, a) y = Mul(p, half)",  # torch.onnx, both exporters
        ERF + "p = Mul(half, x) y = Mul(p, a)",
        ERF + "p = Mul(half, a) y = Mul(p, x)",
        ERF + "p = Mul(a, half) y = Mul(x, p)",
        ERF + "p = Mul(x, half) y = Mul(a, p)",
        ERF + "p = Mul(x, a) y = Div(p, two)",
        "d = Mul(x, inverse) e = Erf(d) a = Add(one, e) p = Mul(x, a) y = Mul(half, p)",
        "d = Mul(inverse, x) e = Erf(d) f = Mul(e, half) a = Add(f, half) y = Mul(x, a)",
        "d = Div(x, rough) e = Erf(d) a = Add(e, one) p = Mul(x, a) y = Mul(p, half)",
        "d = Mul(x, roughinverse) e = Erf(d) a = Add(e, one) p = Mul(x, half) y = Mul(p, a)",
        "n = Neg(x) d = Div(n, root) e = Erf(d) a = Sub(one, e) p = Mul(x, a) y = Mul(p, half)",
        "f = Cast<to = 1>(x) " + ERF.replace("(x,", "(f,") + "p = Mul(f, a) y = Mul(p, half)",
        "y = Gelu(x)",
        'y = Gelu<approximate = "none">(x)',
        "y = com.microsoft.Gelu(x)",
        "y = com.microsoft.BiasGelu(x, bias)",
    ],
    "gelu-tanh": [
        TANH + "p = Mul(x, half) y = Mul(p, a)",
        TANH + "p = Mul(a, x) y = Mul(half, p)",
        (
            "s = Mul(x, x) c = Mul(s, x) k = Mul(cubic, c) i = Add(k, x) t = Mul(inside, i) "
            "e = Tanh(t) a = Add(one, e) p = Mul(half, a) y = Mul(x, p)"
        ),
        (
            "s = Mul(x, x) k = Mul(cubic, s) j = Add(one, k) u = Mul(inside, x) t = Mul(u, j) "
            "e = Tanh(t) a = Add(one, e) p = Mul(half, x) y = Mul(p, a)"
        ),
        CUBE + "k = Mul(c, cubic) i = Add(x, k) t = Mul(i, twice) e = Sigmoid(t) y = Mul(x, e)",
        'y = Gelu<approximate = "tanh">(x)',
        "y = com.microsoft.FastGelu(x)",
    ],
    "gelu-quick": ["k = Mul(x, quick) s = Sigmoid(k) y = Mul(x, s)", "y = com.microsoft.QuickGelu(x)"],
    "silu": [
        "s = Sigmoid(x) y = Mul(x, s)",
        "s = Sigmoid(x) y = Mul(s, x)",
        "n = Neg(x) e = Exp(n) a = Add(one, e) y = Div(x, a)",
        "y = Swish(x)",
        "y = com.microsoft.QuickGelu<alpha = 1.0>(x)",
    ],
    "relu": ["y = Relu(x)"],
}

NUMBERS = {
    "root": ROOT,
    "inverse": RECIPROCAL,
    "rough": 1.4142,
    "roughinverse": 0.7071,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "half": 0.5,
    "cubic": 0.044715,
    "inside": INSIDE,
    "twice": 2 * INSIDE,
    "quick": 1.702,
}


def constants_in(body: str, dtype: type = np.float32) -> dict[str, np.ndarray]:
    used = [name for name in NUMBERS if f"{name})" in body or f"({name}," in body]
    given = {name: np.array(NUMBERS[name]).astype(dtype) for name in used}
    return given | ({"bias": np.ones(4, np.float32)} if "bias" in body else {})


def found_in(model: ir.Model) -> list[Activation]:
    return [found for node in nodes(model) if (found := find_activation(node)) is not None]


@pytest.mark.parametrize(
    ("kind", "body"), [(kind, body) for kind, bodies in SPELLINGS.items() for body in bodies]
)
def test_every_spelling(kind, body, build):
    model = build(body, opset=24, **constants_in(body))
    found = found_in(model)
    assert {activation.kind for activation in found} == {kind}
    last = found[-1]
    assert last.output.name == "y" and last.input.name in ("x", "f")
    assert last.nodes[-1] is last.output.producer()
    assert (last.bias is not None) == ("bias" in body)
    assert bool(find_gelu(last.nodes[-1])) == kind.startswith("gelu")
    assert bool(find_silu(last.nodes[-1])) == (kind == "silu")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize(
    ("kind", "body"), [("gelu-erf", SPELLINGS["gelu-erf"][0]), ("gelu-tanh", SPELLINGS["gelu-tanh"][0])]
)
def test_constants_in_any_precision(kind, body, dtype, build):
    element = {np.float16: "float16", np.float64: "double"}.get(dtype, "bfloat16")
    types = {"inputs": f"{element}[N,T,4] x", "outputs": f"{element}[N,T,4] y"}
    (found,) = found_in(build(body, **types, **constants_in(body, dtype)))
    assert (found.kind, found.input.name) == (kind, "x")


def test_the_argument_may_be_elementwise_itself(build):
    """The cut is made where the function is a Gelu, not at the first value that varies."""
    body = "x2 = Mul(w, two) x = Add(x2, one) " + ERF + "p = Mul(x, a) y = Mul(p, half)"
    model = build(body, inputs="float[N,T,4] w", **constants_in(body))
    (found,) = found_in(model)
    assert found.input.name == "x" and len(found.nodes) == 5


def test_a_gate_is_not_part_of_the_activation(build):
    model = build("s = Sigmoid(g) a = Mul(g, s) y = Mul(a, x)", inputs="float[N,T,4] x, float[N,T,4] g")
    (found,) = found_in(model)
    assert (found.kind, found.input.name, found.output.name) == ("silu", "g", "a")


@pytest.mark.parametrize(
    "body",
    [
        "d = Div(x, two) e = Erf(d) a = Add(e, one) p = Mul(x, a) y = Mul(p, half)",
        ERF + "p = Mul(x, a) y = Mul(p, two)",
        ERF.replace("Add(e, one)", "Sub(e, one)") + "p = Mul(x, a) y = Mul(p, half)",
        TANH.replace("cubic", "half") + "p = Mul(x, half) y = Mul(p, a)",
        "s = Sigmoid(x) y = Mul(s, s)",
        "s = Sigmoid(x) y = Mul(w, s)",
        "s = Sigmoid(w) y = Mul(x, s)",
        "k = Mul(x, two) s = Sigmoid(k) y = Mul(x, s)",
        "y = Mul(x, x)",
        "y = com.microsoft.QuickGelu<alpha = 1.3>(x)",
    ],
)
def test_other_functions_are_nothing(body, build):
    model = build(body, inputs="float[N,T,4] x, float[N,T,4] w", **constants_in(body))
    assert found_in(model) == []


def test_a_deep_product_ends_the_search(build):
    body = "".join(f"p{i + 1} = Mul(p{i}, p{i}) " for i in range(400))
    assert found_in(build("p0 = Sigmoid(x) " + body + "y = Mul(p400, x)")) == []

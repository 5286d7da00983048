"""Graphs for the editor: a chain, a function, branches."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.edit import Edit

X = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)

CHAIN = "g (float[N,2] x) => (float[N,2] y) { h = Neg(x) y = Relu(h) }"

FUNCTION = """g (float[N,2] x) => (float[N,2] y) { y = here.f(x) }
<domain: "here", opset_import: ["": 18]> f (a) => (b) { c = Constant<value = float {2.0}>() b = Mul(a, c) }"""

BRANCHES = """g (float[N,2] x, bool cond) => (float[N,2] y) <float[2] w = {1, 2}> {
    h = Neg(x)
    y = If(cond) <
        then_branch = yes () => (float[N,2] t) { t = Add(h, w) },
        else_branch = no () => (float[N,2] e) <float[2] v = {3, 4}> { e = Mul(x, v) }
    >
}"""


def edit_of(model: ir.Model) -> Edit:
    return Edit(model, "trial")

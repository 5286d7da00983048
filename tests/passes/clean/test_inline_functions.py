"""Functions of a model: what they hold is found once it stands where they were called."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.api import inspect
from onnxq.contract import Example
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.passes.clean import cleaning
from onnxq.passes.clean.inline_functions import InlineFunctions
from onnxq.pipeline import apply_pass, run
from tests.graphs import check, outputs_of

BLOCK = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
g (float[N,16] x) => (float[N,16] y)
    { h = own.Block(x, g0, w0, b0)  c = own.Block(h, g1, w1, b1)
      y = If(yes) <then_branch = t () => (float[N,16] u) { m = Relu(c)  u = own.Block(m, g0, w0, b0) },
                   else_branch = e () => (float[N,16] v) { v = Neg(c) }> }
<domain: "own", opset_import: ["" : 17]>
Linear (a, w, b) => (c) { m = MatMul(a, w)  c = Add(m, b) }
<domain: "own", opset_import: ["" : 17, "own" : 1]>
Block (a, g, w, b) => (c) { n = LayerNormalization(a, g)  m = own.Linear(n, w, b)  c = Add(a, m) }
"""


LOOP = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
g (float[N,4] x) => (float[N,4] y)
    { s = Neg(x)
      y = If(yes) <then_branch = t () => (float[N,4] u) { u = own.Thrice(s) },
                   else_branch = e () => (float[N,4] v) { v = Identity(s) }> }
<domain: "own", opset_import: ["" : 17]>
Thrice (a) => (b)
    { n = Constant <value_int = 2> ()
      b = Loop(n, , a) <body = l (int64 i, bool c, float[N,4] s) => (bool d, float[N,4] r)
          { d = Identity(c)  r = Add(s, a) }> }
"""


def model() -> ir.Model:
    random = np.random.default_rng(3)
    arrays = {"yes": np.array(True)}
    for number in "01":
        arrays[f"w{number}"] = random.normal(size=(16, 16)).astype(np.float32)
        arrays |= {f"{name}{number}": random.normal(size=16).astype(np.float32) for name in "gb"}
    return Example(BLOCK, constants=arrays).model()


def test_norms_and_linears_of_functions_are_found_behind_their_calls() -> None:
    given = model()
    assert not any(isinstance(find_linear(node), Linear) for node in given.graph.all_nodes())
    result = run(given, cleaning(), verify="never").model
    check(result)
    assert not result.functions
    nodes = list(result.graph.all_nodes())
    assert sum(isinstance(find_linear(node), Linear) for node in nodes) == 3
    assert sum(isinstance(find_norm(node), Norm) for node in nodes) == 3
    feed = {"x": np.random.default_rng(4).normal(size=(5, 16)).astype(np.float32)}
    np.testing.assert_array_equal(outputs_of(result, feed)["y"], outputs_of(given, feed)["y"])


def test_what_stands_for_a_call_is_named_behind_its_function() -> None:
    """Names that a branch has taken too are told apart, since branches see those of the graph around them."""
    result = apply_pass(model(), InlineFunctions()).model
    check(result)
    names = [str(node.name) for node in result.graph.all_nodes() if node.op_type == "MatMul"]
    assert names == ["Linear/MatMul", "Linear/MatMul_2", "Linear/MatMul_3"]


def test_a_function_of_another_operator_set_stays_and_the_reason_is_told() -> None:
    given = model()
    next(iter(given.functions.values())).opset_imports[""] = 16
    result = apply_pass(given, InlineFunctions())
    assert result.model is given
    assert len(given.functions) == 2
    assert "version 16" in result.rejects[0].reason


def test_a_loop_of_a_function_does_not_hide_what_its_body_reads_from_outside() -> None:
    """Its own values bear names that the graph around the call may give to others."""
    given = Example(LOOP, constants={"yes": np.array([True])}).model()
    result = apply_pass(given, InlineFunctions()).model
    check(result)
    assert not result.functions
    feed = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
    np.testing.assert_array_equal(outputs_of(result, feed)["y"], -3 * feed["x"])


def test_a_function_that_nobody_calls_goes_and_the_pass_is_done_then() -> None:
    start, _, functions = BLOCK.partition("{")
    given = Example(f"{start}{{ y = Relu(x) }}\n{functions[functions.index('<domain') :]}").model()
    assert len(given.functions) == 2
    result = apply_pass(given, InlineFunctions()).model
    assert not result.functions
    assert not apply_pass(result, InlineFunctions()).modified


def test_inspect_shows_what_is_inside_functions_and_leaves_the_model_alone() -> None:
    given = model()
    feeds = [{"x": np.random.default_rng(4).normal(size=(5, 16)).astype(np.float32)}]
    found = inspect(given, feeds)
    assert found.counts == {"linear": 3, "norm": 3}
    assert len(found.outliers) == 2, "what is inside a branch is not watched"
    assert len(given.functions) == 2

"""One pass on one model: rounds, rejects, order."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from onnxq.contract import Reject
from onnxq.pipeline import apply_pass, checker_complaint
from tests.graphs import model_of, ops_of
from tests.pipeline.passes import NEGATIONS, DropDoubleNegation, Renaming


def test_rewrites_until_nothing_matches():
    model = model_of(NEGATIONS)
    result = apply_pass(model, DropDoubleNegation())
    assert ops_of(result.model) == ["Relu"]
    assert ops_of(model) == ["Neg"] * 4 + ["Relu"], "the model that was given stays"
    assert result.modified
    assert result.settled
    assert [change.action for change in result.changes].count("remove") == 4
    assert {change.owner for change in result.changes} == {"drop-double-negation"}
    assert not apply_pass(result.model, DropDoubleNegation()).modified


def test_weights_are_shared_with_the_copy():
    model = model_of(
        "g (float[n,4] x) => (float[n,4] y) { a = Neg(x) b = Neg(a) y = Add(b, w) }", w=np.ones(4, np.float32)
    )
    result = apply_pass(model, DropDoubleNegation())
    assert result.model.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


def test_walks_branches_and_functions_but_not_what_was_removed():
    model = model_of(
        """g (float[n,4] x, bool c) => (float[n,4] y) {
            y = If(c) <then_branch = yes () => (float[n,4] t) { p = Neg(x) q = Neg(p) t = here.f(q) },
                       else_branch = no () => (float[n,4] e) { e = Neg(x) }>
        }
        <domain: "here", opset_import: ["": 13]> f (a) => (b) { h = Neg(a) k = Neg(h) b = Abs(k) }"""
    )
    seen = []

    class Watching(DropDoubleNegation):
        def match(self, node, context):
            seen.append((node.outputs[0].name, context.opset))
            return super().match(node, context)

    result = apply_pass(model, Watching())
    assert ops_of(result.model) == ["If", "f", "Neg", "Abs"]
    assert {opset for name, opset in seen if name in ("h", "k", "b")} == {13}
    assert {opset for name, opset in seen if name in ("y", "p", "q", "t", "e")} == {18}

    seen.clear()

    class DroppingIf(Watching):
        def match(self, node, context):
            seen.append((node.outputs[0].name, context.opset))
            return node if node.op_type == "If" else None

        def rewrite(self, found, edit):
            (value,) = edit.insert("Neg", [found.graph.inputs[0]], before=found, names=["flat"])
            edit.replace(found.outputs[0], value)
            edit.remove(found)

    gone = apply_pass(model, DroppingIf())
    assert ops_of(gone.model)[0] == "Neg"
    first_match = [name for name, _ in seen].index("y")
    assert not {"p", "q", "e"} & {name for name, _ in seen[first_match:]}


def test_rejects_are_said_once_with_the_node():
    model = model_of(
        "g (float[n,4] x) => (float[n,4] a, float[n,4] y) { a = Neg(x) b = Neg(a) c = Abs(b) y = Abs(c) }"
    )
    result = apply_pass(model, DropDoubleNegation())
    assert not result.modified
    assert result.model is model
    assert result.rejects == (Reject("the first negation is an output", "b"),)


def test_rejects_are_those_of_the_last_round():
    class FirstComeFirst(DropDoubleNegation):
        def match(self, node, context):
            if node.op_type == "Relu" and node.inputs[0].producer() is not None:
                return Reject("something is in front", "")
            return super().match(node, context)

    model = model_of("g (float[n,4] x) => (float[n,4] y) { a = Neg(x) b = Neg(a) y = Relu(b) }")
    assert apply_pass(model, FirstComeFirst()).rejects == ()


def test_endless_pass_is_stopped():
    class ToAndFro(Renaming):
        def match(self, node, context):
            return node if node.op_type in ("Relu", "Abs") else None

        def rewrite(self, found, edit):
            Renaming("", {"Relu": "Abs", "Abs": "Relu"}[found.op_type]).rewrite(found, edit)

    result = apply_pass(model_of(NEGATIONS), ToAndFro())
    assert not result.settled
    assert checker_complaint(result.model) == ""


def test_pass_that_rewrites_nothing_has_changed_nothing():
    class Idle(Renaming):
        def rewrite(self, found, edit):
            pass

    model = model_of(NEGATIONS)
    result = apply_pass(model, Idle())
    assert not result.modified
    assert result.model is model
    assert result.settled


def test_nodes_out_of_order_are_put_in_order():
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {NEGATIONS}')
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    result = apply_pass(ir.from_proto(proto), DropDoubleNegation())
    assert ops_of(result.model) == ["Relu"]

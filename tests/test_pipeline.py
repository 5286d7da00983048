"""The pipeline: what passes do to a model, and what is done to passes that break their word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.contract import Contract, ModelPass, Needs, Pass, Reject
from onnxq.errors import PassFailed, UnsupportedModel, VerificationFailed
from onnxq.pipeline import apply_pass, broken_promise, checker_complaint, run, signature_of
from onnxq.statistics import Statistic, Statistics
from onnxq.verify import Budget, Feed, OracleSettings, Verdict
from tests.graphs import model_of, node_of, ops_of, outputs_of

HERE = OracleSettings(seeds=1, isolated=False)
NEGATIONS = "g (float[n,4] x) => (float[n,4] y) { a = Neg(x) b = Neg(a) c = Neg(b) d = Neg(c) y = Relu(d) }"
X = np.array([[1, -2, 3, -4]], np.float32)


@dataclass(frozen=True)
class DropDoubleNegation(Pass):
    """Neg(Neg(x)) => x."""

    name: ClassVar[str] = "drop-double-negation"
    contract: ClassVar[Contract] = Contract.BITWISE

    def match(self, node, context):
        if node.op_type != "Neg" or node.inputs[0].producer() is None:
            return None
        first = node.inputs[0].producer()
        if first.op_type != "Neg":
            return None
        if node.inputs[0].is_graph_output():
            return Reject("the first negation is an output", "")
        return first, node

    def rewrite(self, found, edit):
        first, second = found
        edit.replace(second.outputs[0], first.inputs[0])
        edit.remove_unused(second)


@dataclass(frozen=True)
class Renaming(Pass):
    """One operator => another; what it promises is up to the test."""

    name: ClassVar[str] = "renaming"
    contract: ClassVar[Contract] = Contract.BITWISE
    old: str = "Relu"
    new: str = "Abs"

    def match(self, node, context):
        return node if node.op_type == self.old else None

    def rewrite(self, found, edit):
        (value,) = edit.insert(self.new, found.inputs, before=found, names=["other"], like=found.outputs[0])
        edit.replace(found.outputs[0], value)
        edit.remove(found)


class Rounding(Renaming):
    name: ClassVar[str] = "rounding"
    contract: ClassVar[Contract] = Contract.LOSSY


class Transforming(ModelPass):
    """Whatever the test says."""

    name: ClassVar[str] = "transforming"
    contract: ClassVar[Contract] = Contract.BITWISE

    def __init__(self, change):
        self.change = change

    def transform(self, model):
        return self.change(model) or model


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


@pytest.mark.parametrize("where", ["match", "rewrite"])
def test_raising_pass_is_named_with_its_node_and_leaves_the_model(where):
    class Raising(Renaming):
        pass

    def fail(self, *_):
        raise KeyError("gone")

    setattr(Raising, where, fail)
    model = model_of(NEGATIONS)
    before = ir.to_proto(model)
    with pytest.raises(PassFailed, match=r"'renaming' failed at node '[ay]': KeyError") as caught:
        apply_pass(model, Raising())
    assert isinstance(caught.value.__cause__, KeyError)
    assert ir.to_proto(model) == before
    result = run(model, [Raising(), DropDoubleNegation()], verify="never")
    assert "KeyError" in result.rolled_back["renaming"]
    assert ops_of(result.model) == ["Relu"], "the next pass goes on"
    with pytest.raises(PassFailed):
        run(model, [Raising()], verify="never", strict=True)


def test_raising_model_pass_is_named():
    def fail(model):
        model.graph.outputs.clear()
        raise RuntimeError("half way")

    model = model_of(NEGATIONS)
    with pytest.raises(PassFailed, match="'transforming' failed: RuntimeError: half way"):
        apply_pass(model, Transforming(fail))
    assert len(model.graph.outputs) == 1


def test_model_pass_may_leave_a_model_alone_and_say_why():
    def refuse(model):
        raise UnsupportedModel("not this one", slug="no")

    result = apply_pass(model_of(NEGATIONS), Transforming(refuse))
    assert not result.modified
    assert [reject.reason for reject in result.rejects] == ["not this one"]


def test_model_pass_is_not_asked_whether_it_changed_anything():
    model = model_of(NEGATIONS, w=np.ones(4, np.float32))

    def same(model):
        return ir.from_proto(ir.to_proto(model))

    def rename(model):
        node_of(model, "Relu").name = "last"

    def reweigh(model):
        model.graph.initializers["w"].const_value = ir.tensor(np.zeros(4, np.float32), name="w")

    def attribute(model):
        node_of(model, "Relu").attributes["alpha"] = ir.AttrFloat32("alpha", 0.5)

    assert not apply_pass(model, Transforming(same)).changes
    assert [change.node for change in apply_pass(model, Transforming(rename)).changes] == ["y", "last"]
    assert [change.detail for change in apply_pass(model, Transforming(reweigh)).changes] == ["w"]
    assert [change.action for change in apply_pass(model, Transforming(attribute)).changes] == ["transform"]


def test_needs_that_are_not_met_skip_a_pass_with_the_reason():
    class Newer(Renaming):
        needs: ClassVar[Needs] = Needs(opset=21)

    class Calibrated(Renaming):
        needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.HISTOGRAM}))

    model = model_of(NEGATIONS)
    assert "needs opset 21, the model has 18" in apply_pass(model, Newer()).skipped
    assert "calibration data (histogram)" in apply_pass(model, Calibrated()).skipped
    assert run(model, [Calibrated()], verify="never").results[0].skipped
    assert apply_pass(model, Calibrated(), Statistics()).modified


class Calibrated(Renaming):
    """Reads statistics of the input of the operator it renames."""

    name: ClassVar[str] = "calibrated"
    contract: ClassVar[Contract] = Contract.LOSSY
    needs: ClassVar[Needs] = Needs(statistics=frozenset({Statistic.CHANNEL_EXTREMES}))

    def observe(self, model):
        return [node.inputs[0] for node in model.graph if node.op_type == self.old]


def test_statistics_are_gathered_for_the_model_as_it_then_is():
    asked = []

    def gather(model, wanted):
        asked.append((len(model.graph), {kind.value: list(names) for kind, names in wanted.items()}))
        return Statistics()

    model = model_of(NEGATIONS)
    passes = [Calibrated("Tanh"), Calibrated("Relu", "Abs"), DropDoubleNegation(), Calibrated("Abs", "Relu")]
    run(model, passes, gather=gather, verify="never")
    assert asked == [
        (5, {"channel-extremes": []}),
        (5, {"channel-extremes": ["d"]}),
        (1, {"channel-extremes": ["x"]}),
    ]


def test_a_pass_may_want_each_value_in_its_own_way():
    asked = []

    class Choosy(Calibrated):
        def wanted(self, model):
            (node,) = self.observe(model)
            return {**super().wanted(model), Statistic.EXAMPLES: [node, model.graph.inputs[0]]}

    def gather(model, wanted):
        asked.append({kind: sorted(names) for kind, names in wanted.items()})
        return Statistics()

    run(model_of(NEGATIONS), [Choosy("Relu")], gather=gather, verify="never")
    assert asked == [{Statistic.CHANNEL_EXTREMES: ["d"], Statistic.EXAMPLES: ["d", "x"]}]


def test_statistics_of_an_unchanged_model_are_used_again():
    asked = []

    def gather(model, wanted):
        asked.append({kind.value: list(names) for kind, names in wanted.items()})
        return Statistics()

    passes = [Calibrated("Relu", "Relu6"), Calibrated("Relu"), Calibrated("Neg")]

    class Looking(Calibrated):
        def match(self, node, context):
            return None

    run(
        model_of(NEGATIONS), [Looking("Relu"), Looking("Relu"), Looking("Neg")], gather=gather, verify="never"
    )
    assert [sorted(each["channel-extremes"]) for each in asked] == [["d"], ["a", "b", "c", "d", "x"]]
    assert len(passes) == 3


@pytest.mark.parametrize("verify", ["each", "end"])
def test_pass_that_breaks_its_promise_is_rolled_back(verify):
    model = model_of(NEGATIONS)
    result = run(model, [Renaming(), DropDoubleNegation()], verify=verify, oracle=HERE)
    assert list(result.rolled_back) == ["renaming"]
    assert "output 'y'" in result.rolled_back["renaming"]
    assert ops_of(result.model) == ["Relu"]
    assert {change.owner for change in result.journal} == {"drop-double-negation"}
    assert result.judgement.verdict is Verdict.EQUAL
    assert result.verified
    assert np.array_equal(outputs_of(result.model, {"x": X})["y"], outputs_of(model, {"x": X})["y"])


@pytest.mark.parametrize("verify", ["each", "end"])
def test_strict_stops_at_a_broken_promise(verify):
    with pytest.raises(VerificationFailed):
        run(model_of(NEGATIONS), [Renaming()], verify=verify, strict=True, oracle=HERE)


def test_unverified_result_says_so():
    result = run(model_of(NEGATIONS), [Renaming()], verify="never")
    assert result.judgement is None
    assert not result.verified
    unjudged = run(
        model_of(
            "g (float[n,4] x) => (float[n,4] y) {r = RandomNormalLike(x) a = Neg(x) b = Neg(a) y = Add(r, b)}"
        ),
        [DropDoubleNegation()],
        oracle=HERE,
    )
    assert unjudged.judgement.verdict is Verdict.CANNOT_JUDGE
    assert not unjudged.verified


def test_exact_passes_are_judged_on_both_sides_of_a_lossy_one():
    model = model_of(NEGATIONS)
    result = run(
        model, [DropDoubleNegation(), Rounding("Relu", "Ceil"), Renaming("Ceil", "Floor")], oracle=HERE
    )
    assert list(result.rolled_back) == ["renaming"]
    assert ops_of(result.model) == ["Ceil"]


def test_lossy_pass_is_held_to_the_budget():
    model = model_of(NEGATIONS)
    feeds = [Feed("real", {"x": X})]
    kept = run(model, [Rounding("Relu", "Abs")], feeds=feeds, budget=Budget(), oracle=HERE)
    assert kept.results[0].modified
    undone = run(model, [Rounding("Relu", "Abs")], feeds=feeds, budget=Budget(sqnr_db=20), oracle=HERE)
    assert "SQNR" in undone.rolled_back["rounding"]


def test_progress_is_told_in_order():
    steps = []
    run(model_of(NEGATIONS), [Renaming("Tanh"), DropDoubleNegation()], oracle=HERE, progress=steps.append)
    assert [(step.number, step.total, step.name, step.action) for step in steps] == [
        (1, 2, "renaming", "rewrite"),
        (2, 2, "drop-double-negation", "rewrite"),
        (2, 2, "drop-double-negation", "verify"),
        (3, 2, "", "verify"),
    ]


def test_same_passes_give_the_same_bytes():
    results = [
        run(model_of(NEGATIONS), [DropDoubleNegation(), Renaming("Relu", "Relu")], verify="never")
        for _ in "ab"
    ]
    first, second = (ir.to_proto(result.model).SerializeToString(deterministic=True) for result in results)
    assert first == second


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


def test_nodes_out_of_order_are_put_in_order():
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {NEGATIONS}')
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    result = apply_pass(ir.from_proto(proto), DropDoubleNegation())
    assert ops_of(result.model) == ["Relu"]


def test_broken_promise_of_nothing_is_nothing():
    model = model_of(NEGATIONS)
    assert broken_promise(model, model.clone(), Renaming()) == ""

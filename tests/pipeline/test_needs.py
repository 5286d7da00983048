"""What passes need: statistics, gathered when they are wanted, and an opset."""

from __future__ import annotations

from typing import ClassVar

from onnxq.contract import Contract, Needs
from onnxq.pipeline import apply_pass, run
from onnxq.statistics import Statistic, Statistics
from tests.graphs import model_of
from tests.pipeline.passes import NEGATIONS, DropDoubleNegation, Renaming


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

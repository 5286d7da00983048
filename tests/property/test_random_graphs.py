"""Exact passes on random graphs: whatever they do to them, they compute the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import hypothesis.strategies as st
import onnx
import onnx.printer
import onnx_ir as ir
import pytest
from hypothesis import event, given, note, settings

from onnxq.contract import AnyPass, Contract
from onnxq.passes import registry
from onnxq.passes.clean.raise_opset import RaiseOpset
from onnxq.pipeline import Gather, PipelineResult, run
from onnxq.runtime.delivery import with_taps
from onnxq.statistics import Statistic, Statistics, TensorStatistics
from onnxq.verify import FeedSettings, OracleSettings, Verdict, make_feeds
from onnxq.verify.feeds import sizes_of
from tests.graphs import outputs_of
from tests.property.random_graphs import models

ORACLE = OracleSettings(seeds=1, isolated=False, optimised=False)
SMALL = {
    "disassemble-channels": {"gain": 0.0, "least": 1, "multiple": 1},
    "rotate-channels": {"block": 2, "least": 1},
    "split-channels": {"channels": 1, "least": 1},
    "split-groups": {"groups": 2, "least": 1},
}
"""What lets passes fire on graphs of a few channels."""
EXACT: list[AnyPass] = [
    kind(**SMALL.get(name, {})) for name, kind in registry().items() if kind.contract is not Contract.LOSSY
]
SAME_OPSET: list[AnyPass] = [each for each in EXACT if not isinstance(each, RaiseOpset)]
NEWEST: list[AnyPass] = [RaiseOpset(to=23) if isinstance(each, RaiseOpset) else each for each in EXACT]
SEARCHED: list[AnyPass] = [
    registry()[name](search=search)
    for name in ("shift-scale", "insert-scale")
    for search in ("output", "token")
]
"""Other ways to find the same factors."""
PROVEN_ELSEWHERE = {
    "compute-picked": "tests/passes/quantize/test_products.py",
    "raise-for-attention": "tests/passes/layout/test_attention.py",
    "fuse-attention": "tests/passes/layout/test_attention.py",
    "stack-heads": "tests/passes/layout/test_decoders.py",
    "fuse-rotary": "tests/passes/layout/test_decoders.py",
    "pick-by-slice": "tests/passes/layout/test_residuals.py",
    "gather-dequantized": "tests/property/test_mutants.py",
    "fold-row-factor": "tests/passes/layout/test_attention.py",
}
"""Passes for which random graphs are too small or too plain, and where their numbers are compared instead:
heads are split, repeated and turned by many nodes in a row, and rounding comes before picking."""
ROOT = Path(__file__).parents[2]
FEW, MANY = settings.get_profile("few"), settings.get_profile("many")


def gather(model: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
    """Statistics of values of the main graph on one random feed."""
    names = {name for group in wanted.values() for name in group}
    computed = {value.name for node in model.graph for value in node.outputs}
    (feed,) = make_feeds(model, sizes_of(model)[0], FeedSettings(seeds=1, corners=False))
    seen = outputs_of(with_taps(model, sorted(names & computed)), feed.arrays) | dict(feed.arrays)
    return Statistics(
        {
            name: TensorStatistics.of(seen[name].reshape(-1, seen[name].shape[-1]), list(wanted))
            for name in sorted(names & seen.keys())
            if seen[name].dtype.kind == "f" and seen[name].ndim
        }
    )


def verified(model: ir.Model, passes: list[AnyPass], gather: Gather = gather) -> PipelineResult:
    note(onnx.printer.to_text(ir.to_proto(model)))
    result = run(model, passes, gather=gather, verify="each", oracle=ORACLE, strict=True)
    for each in result.results:
        if each.modified:
            event(each.name)
            assert each.judgement.verdict is Verdict.EQUAL, f"{each.name}: {each.judgement.reason}"
        assert each.settled, f"{each.name} does not come to an end"
    return result


def check_pipeline(model: ir.Model, newest: bool) -> None:
    verified(model, NEWEST if newest else EXACT)


def check_alone(model: ir.Model) -> None:
    """Each pass on the graph as it was exported, twice: on the same statistics it must find nothing more."""
    for each in [*EXACT, *SEARCHED]:
        kept: list[Statistics] = []

        def gather_once(
            state: ir.Model, wanted: Mapping[Statistic, Collection[str]], kept=kept
        ) -> Statistics:
            if not kept:
                kept.append(gather(state, wanted))
            return kept[0]

        _, again = verified(model, [each, each], gather_once).results
        assert not again.changes, f"{each.name} is not idempotent"


@settings(FEW)
@given(models(), st.booleans())
def test_the_exact_pipeline_changes_nothing_but_the_graph(model, newest):
    check_pipeline(model, newest)


@settings(FEW, max_examples=20)
@given(models(most_steps=4))
def test_each_exact_pass_alone_changes_nothing_but_the_graph(model):
    check_alone(model)


@pytest.mark.slow
@settings(MANY)
@given(models(most_steps=12), st.booleans())
def test_the_exact_pipeline_on_many_larger_graphs(model, newest):
    check_pipeline(model, newest)


@pytest.mark.slow
@settings(MANY)
@given(models(most_steps=6))
def test_each_exact_pass_alone_on_many_graphs(model):
    check_alone(model)


def test_random_graphs_give_every_pass_something_to_do():
    """Otherwise the tests above would prove nothing about it."""
    fired: set[str] = set()

    @settings(FEW, max_examples=300)
    @given(models(), st.sampled_from([EXACT, NEWEST, SAME_OPSET]))
    def collect(model: ir.Model, passes: list[AnyPass]) -> None:
        result = run(model, passes, gather=gather, verify="never")
        fired.update(each.name for each in result.results if each.modified)

    collect()
    idle = {each.name for each in EXACT} - fired
    assert idle <= PROVEN_ELSEWHERE.keys()


@pytest.mark.parametrize("name", PROVEN_ELSEWHERE)
def test_what_random_graphs_leave_idle_is_proven_elsewhere(name):
    text = (ROOT / PROVEN_ELSEWHERE[name]).read_text(encoding="utf-8")
    assert registry()[name].__name__ in text or f'"{name}"' in text

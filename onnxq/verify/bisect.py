"""Who is to blame: the first rewrite that changed the result, the first value that came out otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.contract import Contract
from onnxq.edit import label_of
from onnxq.verify.compare import OutputComparison, compare
from onnxq.verify.feeds import Feed
from onnxq.verify.hosts import Host, InProcess
from onnxq.verify.judgement import Judgement, OracleSettings, Verdict
from onnxq.verify.oracle import judge


@dataclass(frozen=True)
class State:
    """A model on the way from the original to the result, and the rewrite that made it."""

    name: str
    model: ir.Model
    contract: Contract = Contract.REASSOCIATES


@dataclass(frozen=True)
class Divergence:
    """A value that two models call by one name and compute differently.

    Attributes:
        value: Name of the value.
        node: The node that computes it in the rewritten model.
        comparison: How far off it is.
    """

    value: str
    node: str
    comparison: OutputComparison


def first_different(
    original: ir.Model,
    states: Sequence[State],
    *,
    feeds: Sequence[Feed] | None = None,
    settings: OracleSettings | None = None,
    host: Host | None = None,
) -> tuple[State, Judgement] | None:
    """The first of `states` that differs from `original`, found by halving; None if the last one is equal.

    Once a result has gone wrong it is taken to stay wrong.
    """
    settings = settings or OracleSettings()
    if not states:
        return None
    last = _judge(original, states, len(states) - 1, feeds, settings, host)
    if last.verdict is not Verdict.DIFFERENT:
        return None
    good, bad, why = -1, len(states) - 1, last
    while bad - good > 1:
        middle = (good + bad) // 2
        judgement = _judge(original, states, middle, feeds, settings, host)
        if judgement.verdict is Verdict.DIFFERENT:
            bad, why = middle, judgement
        else:
            good = middle
    return states[bad], why


def divergences(
    before: ir.Model, after: ir.Model, feed: Feed, *, above: float = 0.0, host: Host | None = None
) -> list[Divergence]:
    """Values of the main graph that both models have by name and compute differently, ordered as in `after`.

    A rewrite may move a scale through a value on purpose: what counts is where it does not come back.

    Args:
        before: The original.
        after: The rewritten model.
        feed: The inputs to look at.
        above: Largest difference that is overlooked, as a share of the largest magnitude of the value.
        host: What opens the models; this process if None.
    """
    from onnxq.runtime.delivery import with_taps

    known = {value.name for node in before.graph for value in node.outputs if value.name}
    makers = {
        str(value.name): label_of(node)
        for node in after.graph
        for value in node.outputs
        if value.name in known
    }
    opened = host or InProcess()
    runs = [
        opened.open(with_taps(model, list(makers)), "disabled").run(feed.arrays) for model in (before, after)
    ]
    comparison = compare(*({name: run[name] for name in makers} for run in runs))
    return [
        Divergence(name, makers[name], output)
        for name, output in comparison.outputs.items()
        if name in makers and _differs(output, above)
    ]


def _differs(output: OutputComparison, above: float) -> bool:
    return bool(output.mismatch) or output.wrong > 0 or output.max_abs > above * output.scale


def _judge(
    original: ir.Model,
    states: Sequence[State],
    index: int,
    feeds: Sequence[Feed] | None,
    settings: OracleSettings,
    host: Host | None,
) -> Judgement:
    """The verdict on one state, held to the weakest promise on the way to it."""
    promised = {state.contract for state in states[: index + 1]}
    contract = Contract.REASSOCIATES if Contract.REASSOCIATES in promised else Contract.BITWISE
    return judge(original, states[index].model, contract, feeds=feeds, settings=settings, host=host)

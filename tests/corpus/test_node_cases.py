"""The node cases of the onnx package, each through every exact pass: none crashes, none changes what it is.

The cases are the examples of the operator documentation with their inputs; about 1,360 run on the CPU. Every
third is tried each time, all of them with ``-m slow``.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx.backend.test.case.node as node_cases
import onnx_ir as ir
import pytest

from onnxq.contract import AnyPass, Contract
from onnxq.errors import BackendError, OnnxqError
from onnxq.passes import registry
from onnxq.pipeline import PipelineResult, broken_promise, run
from onnxq.runtime import Session, open_session
from onnxq.verify import Feed, OracleSettings, Verdict, judge
from onnxq.verify.hosts import InProcess
from tests.graphs import PLAIN

RUNNABLE = 1300
EXACT: list[AnyPass] = [kind() for kind in registry().values() if kind.contract is not Contract.LOSSY]
JUDGED = OracleSettings(isolated=False, optimised=False)


@dataclass(frozen=True)
class Outcome:
    name: str
    changed: frozenset[str]
    crash: str = ""
    interface: str = ""
    meaning: str = ""


class Known:
    """A host that opens the original of a case no second time."""

    def __init__(self, model: ir.Model, session: Session) -> None:
        self.model, self.session = model, session

    def open(self, model: ir.Model, level: Any, /) -> Any:
        return self.session if model is self.model and level == "disabled" else InProcess().open(model, level)


@pytest.fixture(scope="module", params=[3, pytest.param(1, marks=pytest.mark.slow)], ids="1 in {}".format)
def step(request: pytest.FixtureRequest) -> int:
    """One case in so many is tried."""
    return int(request.param)


@pytest.fixture(scope="module")
def outcomes(step: int) -> list[Outcome]:
    logging.disable(logging.WARNING)
    try:
        return list(run_all(step))
    finally:
        logging.disable(logging.NOTSET)


def run_all(step: int) -> Iterator[Outcome]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = node_cases.collect_testcases(None)
    for case in cases[::step]:
        model = ir.from_proto(case.model)
        inputs = [value.name for value in model.graph.inputs]
        feeds = [
            Feed(str(n), dict(zip(inputs, given, strict=False)))
            for n, (given, _) in enumerate(case.data_sets)
        ]
        try:
            session = open_session(case.model.SerializeToString(), PLAIN)
            session.run(feeds[0].arrays)
        except BackendError:
            continue  # no kernel for it on the CPU
        yield put_through(case.name, model, feeds, session)


def put_through(name: str, model: ir.Model, feeds: list[Feed], session: Session) -> Outcome:
    try:
        result = run(model, EXACT, verify="never", strict=True)
    except OnnxqError as error:
        return Outcome(name, frozenset(), crash=str(error))
    changed = frozenset(each.name for each in result.results if each.modified)
    if not changed:
        return Outcome(name, changed)
    interface = broken_promise(model, result.model, Raising)
    judgement = judge(
        model, result.model, promise_of(result), feeds=feeds, settings=JUDGED, host=Known(model, session)
    )
    nondeterministic = "each time it runs" in judgement.reason
    meaning = "" if judgement.verdict is Verdict.EQUAL or nondeterministic else judgement.reason
    return Outcome(name, changed, interface=interface, meaning=meaning)


class Raising:
    """Stands for all passes together: one of them may raise the opset."""

    raises_opset = True


def promise_of(result: PipelineResult) -> Contract:
    made = {each.contract for each in result.results if each.modified}
    return Contract.REASSOCIATES if Contract.REASSOCIATES in made else Contract.BITWISE


def test_enough_cases_run(outcomes, step):
    assert len(outcomes) >= RUNNABLE // step


def test_none_crashes(outcomes):
    assert {outcome.name: outcome.crash for outcome in outcomes if outcome.crash} == {}


def test_none_changes_its_interface(outcomes):
    assert {outcome.name: outcome.interface for outcome in outcomes if outcome.interface} == {}


def test_none_changes_its_meaning(outcomes):
    assert {outcome.name: outcome.meaning for outcome in outcomes if outcome.meaning} == {}


def test_the_passes_had_something_to_do(outcomes, step):
    times = Counter(name for outcome in outcomes for name in outcome.changed)
    assert sum(bool(outcome.changed) for outcome in outcomes) > 100 // step
    assert len(times) >= 5, times

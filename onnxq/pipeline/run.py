"""A list of passes on one model: gather statistics, rewrite, check, roll back, verify."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

import onnx_ir as ir

from onnxq.contract import AnyPass, Contract, names_wanted
from onnxq.errors import PassFailed, VerificationFailed
from onnxq.pipeline.apply import apply_pass
from onnxq.pipeline.checks import broken_promise
from onnxq.pipeline.results import PassResult, PipelineResult, Step
from onnxq.statistics import Statistic, Statistics
from onnxq.verify import Budget, Feed, Judgement, OracleSettings, Verdict, judge
from onnxq.verify.hosts import Host

Verify = Literal["each", "end", "never"]
Wanted = Mapping[Statistic, Collection[str]]
Gather = Callable[[ir.Model, Wanted], Statistics]
Progress = Callable[[Step], None]


def run(
    model: ir.Model,
    passes: Sequence[AnyPass],
    *,
    gather: Gather | None = None,
    verify: Verify = "end",
    strict: bool = False,
    progress: Progress | None = None,
    oracle: OracleSettings | None = None,
    feeds: Sequence[Feed] | None = None,
    budget: Budget | None = None,
    host: Host | None = None,
) -> PipelineResult:
    """Run `passes` over `model` in order; `model` itself is left as it is.

    After every pass the ONNX checker must accept the model and its interface must be what it was; a pass that
    breaks this, raises, or is found out by the oracle is rolled back, and the next one goes on from there.

    Args:
        model: The model to rewrite.
        passes: The passes; nothing is added, nothing reordered.
        gather: Calibration: gives the statistics of values of a model, by kind and name. Asked again
            whenever the model has changed since. Without it, passes that need statistics are skipped, with
            that as the reason.
        verify: When the oracle compares numbers: after each pass, once at the end for each stretch of exact
            passes (and, if that fails, after each pass to find the culprit), or never.
        strict: Raise at the first broken promise instead of rolling it back.
        progress: Told about each step before it is taken.
        oracle: How hard the oracle looks.
        feeds: Inputs for the oracle; made up for exact passes if None.
        budget: How far a lossy pass may go, on `feeds`; without both, lossy passes are not judged here.
        host: Where the oracle runs models; a worker process of its own if None.

    Raises:
        PassFailed: A pass raised, and `strict`.
        VerificationFailed: A pass broke its promise, and `strict`; or all passes kept theirs one by one and
            the result still differs.
    """
    oracle = oracle or OracleSettings()
    task = _Task(gather, verify, strict, progress, oracle, feeds, budget, len(passes))
    with _host_for(verify, oracle, host) as opened:
        task.host = opened
        result = task.run(model, passes)
        if result.judgement is None or result.judgement.verdict is not Verdict.DIFFERENT:
            return result
        if strict:
            raise _not_equal(result.judgement, "the exact passes together")
        task.verify = "each"
        again = task.run(model, passes)
        if again.rolled_back and (
            again.judgement is None or again.judgement.verdict is not Verdict.DIFFERENT
        ):
            return again
        raise _not_equal(
            result.judgement, "passes that each keep their promise, and all of them together do not"
        )


class _Task:
    """The settings of one run, and the statistics of the model state it is in."""

    def __init__(
        self,
        gather: Gather | None,
        verify: Verify,
        strict: bool,
        progress: Progress | None,
        oracle: OracleSettings,
        feeds: Sequence[Feed] | None,
        budget: Budget | None,
        total: int,
    ) -> None:
        self.gather, self.verify, self.strict, self.progress = gather, verify, strict, progress
        self.oracle, self.feeds, self.budget, self.total = oracle, feeds, budget, total
        self.host: Host | None = None
        self.timings = dict.fromkeys(("rewrite", "statistics", "verify"), 0.0)
        self.known = _Known()

    def run(self, model: ir.Model, passes: Sequence[AnyPass]) -> PipelineResult:
        """Run the passes once through."""
        results: list[PassResult] = []
        stretches: list[_Stretch] = [_Stretch(model, model)]
        state = model
        for number, a_pass in enumerate(passes, 1):
            result = self._one(state, a_pass, number)
            results.append(result)
            if not result.modified:
                continue
            state = result.model
            if a_pass.contract is Contract.LOSSY:
                stretches.append(_Stretch(state, state))
            else:
                stretches[-1] = stretches[-1].extended(state, a_pass.contract)
        judgement = self._judge_stretches(stretches, results)
        journal = tuple(change for result in results if not result.rolled_back for change in result.changes)
        return PipelineResult(state, tuple(results), journal, dict(self.timings), judgement)

    def _one(self, state: ir.Model, a_pass: AnyPass, number: int) -> PassResult:
        """One pass, checked and if need be rolled back."""
        try:
            statistics = self._statistics(state, a_pass, number)
            with self._timed("rewrite", number, a_pass.name):
                result = apply_pass(state, a_pass, statistics)
        except PassFailed as failure:
            if self.strict:
                raise
            return PassResult(a_pass.name, a_pass.contract, state, rolled_back=failure.message)
        if not result.changes:
            return result
        with self._timed("verify", number, a_pass.name):
            reason = broken_promise(state, result.model, a_pass)
            judgement = None if reason else self._judge(state, result.model, a_pass.contract)
        if judgement is not None and judgement.verdict is Verdict.DIFFERENT:
            reason = judgement.reason
        if reason and self.strict:
            raise VerificationFailed(
                f"pass {a_pass.name!r} broke its promise ({a_pass.contract.value}): {reason}",
                slug="broken-promise",
            )
        if reason:
            return dataclasses.replace(result, model=state, rolled_back=reason, judgement=judgement)
        return dataclasses.replace(result, judgement=judgement)

    def _statistics(self, state: ir.Model, a_pass: AnyPass, number: int) -> Statistics | None:
        """Statistics of `state` for what the pass observes, gathered if `known` does not have them."""
        if self.gather is None:
            return None
        try:
            wanted = names_wanted((a_pass,), state)
        except Exception as error:
            message = f"pass {a_pass.name!r} failed to say what it observes: {type(error).__name__}: {error}"
            raise PassFailed(message, slug="pass-raised") from error
        if not wanted and not a_pass.needs.statistics:
            return None
        if not self.known.covers(state, wanted):
            with self._timed("statistics", number, a_pass.name):
                self.known = self.known.widened(state, wanted, self.gather)
        return self.known.statistics

    def _judge(self, before: ir.Model, after: ir.Model, contract: Contract) -> Judgement | None:
        """The oracle's verdict on one pass, if it is asked for one."""
        if contract is Contract.LOSSY:
            if self.verify == "never" or self.budget is None or self.feeds is None:
                return None
        elif self.verify != "each":
            return None
        return judge(
            before,
            after,
            contract,
            feeds=self.feeds,
            budget=self.budget,
            settings=self.oracle,
            host=self.host,
        )

    def _judge_stretches(
        self, stretches: Sequence[_Stretch], results: Sequence[PassResult]
    ) -> Judgement | None:
        """One verdict on all exact passes: the worst of what was said of each, or of each stretch of them."""
        if self.verify == "never":
            return None
        if self.verify == "each":
            said = [result.judgement for result in results if result.judgement and not result.rolled_back]
            return _worst([each for each in said if each.verdict is not Verdict.DIFFERENT])
        with self._timed("verify", self.total + 1, ""):
            return _worst(
                [
                    judge(
                        each.start,
                        each.end,
                        each.contract,
                        feeds=self.feeds,
                        settings=self.oracle,
                        host=self.host,
                    )
                    for each in stretches
                    if each.start is not each.end
                ]
            )

    @contextlib.contextmanager
    def _timed(self, action: str, number: int, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress(Step(number, self.total, name, action))
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[action] += time.perf_counter() - started


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """Exact passes in a row: the model before and after them, and what they promise together."""

    start: ir.Model
    end: ir.Model
    contract: Contract = Contract.BITWISE

    def extended(self, end: ir.Model, contract: Contract) -> _Stretch:
        weakest = self.contract if contract is Contract.BITWISE else contract
        return _Stretch(self.start, end, weakest)


@dataclasses.dataclass(frozen=True)
class _Known:
    """Statistics, the model they are of, and what was asked for when they were gathered."""

    model: ir.Model | None = None
    wanted: Mapping[Statistic, frozenset[str]] = dataclasses.field(default_factory=dict)
    statistics: Statistics = dataclasses.field(default_factory=Statistics)

    def covers(self, model: ir.Model, wanted: Wanted) -> bool:
        """Whether these are of `model` and answer `wanted`."""
        if model is not self.model:
            return False
        return all(set(names) <= self.wanted.get(kind, frozenset()) for kind, names in wanted.items())

    def widened(self, model: ir.Model, wanted: Wanted, gather: Gather) -> _Known:
        """The statistics of `model` for `wanted` and, if the model is the same, all that was asked before."""
        before = self.wanted if model is self.model else {}
        kinds = sorted({*before, *wanted}, key=lambda kind: kind.value)
        union = {kind: before.get(kind, frozenset()) | frozenset(wanted.get(kind, ())) for kind in kinds}
        return _Known(model, union, gather(model, {kind: sorted(names) for kind, names in union.items()}))


@contextlib.contextmanager
def _host_for(verify: Verify, oracle: OracleSettings, given: Host | None) -> Iterator[Host | None]:
    """One worker for all trials of a run; it starts when it is first used."""
    if given is not None or verify == "never" or not oracle.isolated:
        yield given
        return
    from onnxq.verify.hosts import Isolated

    with Isolated(timeout=oracle.timeout) as host:
        yield host


def _worst(judgements: Sequence[Judgement]) -> Judgement | None:
    order = (Verdict.DIFFERENT, Verdict.CANNOT_JUDGE, Verdict.EQUAL)
    return min(judgements, key=lambda judgement: order.index(judgement.verdict), default=None)


def _not_equal(judgement: Judgement, what: str) -> VerificationFailed:
    return VerificationFailed(
        f"the rewritten model is not equal to the original ({what}): {judgement.reason}",
        hint="Nothing was written. Run with verification after each pass to see which one it was.",
        slug="not-equal",
    )

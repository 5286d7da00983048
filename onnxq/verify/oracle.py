"""The oracle: runs two models on the same feeds and says equal, different, or cannot judge.

Both run on the runtime with its optimisations off, so that only the rewrite is on trial. The original runs
twice: where it disagrees with itself nothing can be said. Rounding is not held against a pass that
reassociates: its error is measured against the size of the output and, failing that, against how much the
original itself moves when the runtime optimises it, and when its inputs move by their last bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxq.contract import Contract
from onnxq.errors import BackendError, OnnxqError
from onnxq.verify.compare import Comparison, OutputComparison, compare
from onnxq.verify.feeds import Feed, FeedSettings, make_feeds, sizes_of
from onnxq.verify.hosts import Host, InProcess, Running
from onnxq.verify.judgement import Budget, Judgement, OracleSettings, Verdict
from onnxq.verify.reference import Reference
from onnxq.verify.tolerance import noise_of, rounding_unit

Outputs = Mapping[str, Any]
_FLOAT = 2.0**-23


def judge(
    before: ir.Model,
    after: ir.Model,
    contract: Contract,
    *,
    feeds: Sequence[Feed] | None = None,
    budget: Budget | None = None,
    settings: OracleSettings | None = None,
    host: Host | None = None,
) -> Judgement:
    """Whether `after` keeps the promise of `contract` towards `before`.

    Args:
        before: The original.
        after: The rewritten model.
        contract: What was promised: the same bits, the same but for rounding, or something within `budget`.
        feeds: Inputs to judge on; made up if None, which makes no sense for a lossy contract.
        budget: How far off a lossy rewrite may be.
        settings: How hard to look; as usual if None.
        host: What opens the models; a worker process of its own if None.
    """
    settings = settings or OracleSettings()
    if contract is Contract.LOSSY and (feeds is None or budget is None):
        return Judgement(Verdict.CANNOT_JUDGE, "a lossy rewrite is judged on real feeds, against a budget")
    with _host(host, settings) as opened:
        trial = _Trial(before, after, contract, budget, settings, opened)
        try:
            return trial.hold(feeds)
        except _InconclusiveError as stop:
            return trial.inconclusive(str(stop))


class _InconclusiveError(Exception):
    """Something other than the rewritten model prevents a verdict."""


class _Trial:
    """One trial: two models, what was promised, and what has been seen so far."""

    def __init__(
        self,
        before: ir.Model,
        after: ir.Model,
        contract: Contract,
        budget: Budget | None,
        settings: OracleSettings,
        host: Host,
    ) -> None:
        self.before, self.after = before, after
        self.contract, self.budget, self.settings = contract, budget, settings
        self.host = host
        self.reference = Reference(before, host)
        # Without kernels for half precision a runtime computes in float32, and whether it rounds between two
        # nodes depends on what else is there: the same operations need not give the same bits.
        self.half = rounding_unit(before, after) > _FLOAT
        self.usual: dict[str, float] = {}
        self.seen = Comparison()
        self.count = 0

    def hold(self, given: Sequence[Feed] | None) -> Judgement:
        """Run everything and decide."""
        original = self._open()
        feeds = list(given) if given is not None else self._make_feeds(original)
        answers = self._answers(original, feeds)
        self.reference.feeds = [feed for feed, _ in answers]
        self.usual = _usual_magnitudes(answers)
        try:
            for (feed, answer), found in zip(answers, self._ask_rewritten(answers), strict=True):
                verdict = self._compare(feed, answer, found)
                if verdict is not None:
                    return verdict
            if self.settings.optimised and (verdict := self._optimised(answers[0][0])) is not None:
                return verdict
        except BackendError as error:
            if error.slug in ("timeout", "out-of-memory"):
                raise _InconclusiveError(f"the rewritten model: {error.message}") from error
            return self._verdict(Verdict.DIFFERENT, f"the rewritten model does not run: {error.message}")
        return self._within_budget()

    def inconclusive(self, reason: str) -> Judgement:
        """No verdict, for `reason`."""
        return self._verdict(Verdict.CANNOT_JUDGE, reason)

    def _open(self) -> Running:
        try:
            return self.reference.plain
        except BackendError as error:
            raise _InconclusiveError(f"the original does not load: {error.message}") from error

    def _make_feeds(self, original: Running) -> list[Feed]:
        """Feeds of the first sizes that the original accepts."""
        wanted = FeedSettings(
            self.settings.seeds,
            self.settings.seed,
            self.settings.corners,
            extremes=self.contract is Contract.BITWISE,
        )
        feeds: list[Feed] = []
        accepted, refusal = 0, ""
        for sizes in sizes_of(self.before):
            try:
                made = make_feeds(self.before, sizes, wanted)
                original.run(made[0].arrays)
            except BackendError as error:
                if error.slug not in ("run-failed", "bad-feed"):
                    raise _InconclusiveError(f"the original: {error.message}") from error
                refusal = error.message
                continue
            except OnnxqError as error:
                raise _InconclusiveError(error.message) from error
            feeds += made
            accepted += 1
            if accepted == self.settings.sizes:
                break
        if not feeds:
            raise _InconclusiveError(f"the original runs on no feed that could be made up: {refusal}")
        return feeds

    def _answers(self, original: Running, feeds: Sequence[Feed]) -> list[tuple[Feed, Outputs]]:
        """What the original says to each feed that it accepts, asked twice to see whether it is sure."""
        answers: list[tuple[Feed, Outputs]] = []
        refusal = "there are no feeds"
        for feed in feeds:
            try:
                first, second = original.run(feed.arrays), original.run(feed.arrays)
            except BackendError as error:
                if error.slug not in ("run-failed", "bad-feed"):
                    raise _InconclusiveError(f"the original: {error.message}") from error
                refusal = error.message
                continue
            comparison = compare(first, second)
            if not comparison.identical:
                unsure = next(name for name, output in comparison.outputs.items() if not output.identical)
                raise _InconclusiveError(f"the original gives another {unsure!r} each time it runs")
            answers.append((feed, first))
        if not answers:
            raise _InconclusiveError(f"the original runs on none of the feeds: {refusal}")
        return answers

    def _ask_rewritten(self, answers: Sequence[tuple[Feed, Outputs]]) -> list[Outputs]:
        """What the rewritten model says to each feed; it is closed again before others open."""
        rewritten = self.host.open(self.after, "disabled")
        return [rewritten.run(feed.arrays) for feed, _ in answers]

    def _compare(self, feed: Feed, reference: Outputs, candidate: Outputs) -> Judgement | None:
        """Take one feed into account; a judgement if it settles the matter."""
        comparison = compare(reference, candidate)
        self.seen = self.seen.merge(comparison)
        self.count += 1
        for name, output in comparison.outputs.items():
            complaint = self._complaint(feed, reference, output)
            if complaint:
                return self._verdict(
                    Verdict.DIFFERENT, f"output {name!r} on feed {feed.label!r}: {complaint}"
                )
        return None

    def _complaint(self, feed: Feed, answer: Outputs, output: OutputComparison) -> str:
        """What is wrong with one output on one feed; "" if it is as promised."""
        if output.mismatch or output.identical:
            return output.mismatch
        if self.contract is Contract.LOSSY:
            return ""
        if self.contract is Contract.BITWISE and not self.half:
            return f"bits differ, by {output.max_abs:.3g} at most and {output.wrong} elements altogether"
        if output.wrong:
            return f"{output.wrong} of {output.elements} elements differ in kind (integers, NaN, infinity)"
        # Zeros in may be zeros out by cancellation: an error is as small as it is next to the usual output.
        scale = max(output.scale, self.usual.get(output.name, 0.0))
        allowed = self.settings.factor * rounding_unit(self.before, self.after) * scale
        if output.max_abs <= allowed:
            return ""
        noise = self.settings.noise_margin * noise_of(self.reference, feed, answer, output.name, self.usual)
        if output.max_abs <= noise:
            return ""
        explained = f"rounding explains {max(allowed, noise):.3g}"
        return f"off by {output.max_abs:.3g} at a scale of {scale:.3g}, where {explained}"

    def _optimised(self, feed: Feed) -> Judgement | None:
        """Whether the runtime's own optimiser takes the rewritten model, if it took the original."""
        if self.reference.optimised(feed) is None:
            return None
        self.reference.close()
        try:
            self.host.open(self.after, "all").run(feed.arrays)
        except BackendError as error:
            reason = f"the runtime's own optimiser refuses the rewritten model: {error.message}"
            return self._verdict(Verdict.DIFFERENT, reason)
        return None

    def _within_budget(self) -> Judgement:
        budget = self.budget
        if self.contract is not Contract.LOSSY or budget is None:
            return self._verdict(Verdict.EQUAL, f"{self.contract.value} on {self.count} feeds")
        for name, output in self.seen.outputs.items():
            for figure, value, least in (
                ("cosine", output.cosine_min, budget.cosine_min),
                ("mean cosine", output.cosine_mean, budget.cosine_mean),
                ("SQNR in dB", output.sqnr_db, budget.sqnr_db),
            ):
                if value < least:
                    reason = f"output {name!r}: {figure} {value:.5g} is under the budget of {least:.5g}"
                    return self._verdict(Verdict.DIFFERENT, reason)
        return self._verdict(Verdict.EQUAL, f"within budget on {self.count} feeds")

    def _verdict(self, verdict: Verdict, reason: str) -> Judgement:
        return Judgement(verdict, reason, self.seen.worst, self.count, self.seen)


def _usual_magnitudes(answers: Sequence[tuple[Feed, Outputs]]) -> dict[str, float]:
    """Largest finite magnitude of each input and output over the ordinary feeds."""
    largest: dict[str, float] = {}
    for feed, outputs in answers:
        for arrays in (feed.arrays, outputs) if feed.ordinary else ():
            for name, output in compare(arrays, arrays).outputs.items():
                largest[name] = max(largest.get(name, 0.0), output.scale)
    return largest


@contextlib.contextmanager
def _host(given: Host | None, settings: OracleSettings) -> Iterator[Host]:
    """The host that was given, or one for this trial alone."""
    if given is not None:
        yield given
    elif settings.isolated:
        from onnxq.verify.hosts import Isolated

        with Isolated(timeout=settings.timeout) as host:
            yield host
    else:
        yield InProcess()

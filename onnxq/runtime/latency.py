"""What the processes of a model measured, made into figures, and the figures of several models compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Verdict = Literal["", "faster", "slower", "not resolved"]

FEWEST_ROUNDS = 3
"""Rounds below which no difference is called one."""
STEADY_ROUNDS = 8
"""Rounds from which one that is odd does not keep the others from telling: see `interval_of`."""
_SURE_ROUNDS = 5
_COVERED = 0.92
"""How sure the interval of a median ratio is at least, where there are rounds enough: 5 give 0.9375."""


@dataclass(frozen=True)
class Latency:
    """How long one model takes.

    Attributes:
        threads: Threads inside one operator.
        least_ms: The fastest run of all processes.
        median_ms: The median over the processes of their median runs.
        spread: Range of the processes' medians over `median_ms`.
        quartiles_ms: Distance between the quartiles of all runs.
        process_medians_ms: The median run of each process, in the order they ran.
        runs: Timed runs in all processes.
        load_ms: The fastest opening of the model.
        peak_rss_mb: Largest memory of a process, Python and the runtime included.
        speedup_least: Least time of the first model over this one's; 2.0 is twice as fast.
        speedup_median: The same of `median_ms`.
        loaded_mb: What opening the model added to the memory of a process, the most of all processes.
        settled: Whether runs had stopped getting faster at the end of every warm-up.
        io: "device" if inputs and outputs stayed in an accelerator's memory, so that no copies are counted.
        speedup_low: Lower end of the interval that the median ratio of the rounds lies in.
        speedup_high: Its upper end.
        verdict: Whether this model is "faster" or "slower" than the first, "not resolved" if the rounds do
            not agree on either; "" for the first model itself.
    """

    threads: int
    least_ms: float
    median_ms: float
    spread: float
    quartiles_ms: float
    process_medians_ms: tuple[float, ...]
    runs: int
    load_ms: float
    peak_rss_mb: float
    speedup_least: float = 1.0
    speedup_median: float = 1.0
    loaded_mb: float = 0.0
    settled: bool = True
    io: str = "host"
    speedup_low: float = 1.0
    speedup_high: float = 1.0
    verdict: Verdict = ""

    @property
    def processes(self) -> int:
        """How many processes were timed."""
        return len(self.process_medians_ms)

    @property
    def may_be_slower(self) -> bool:
        """Whether rounds that do not agree leave it open that this model is slower than the first."""
        return self.verdict == "not resolved" and min(self.speedup_least, self.speedup_low) < 1


def latency_of(threads: int, results: Sequence[Mapping[str, Any]]) -> Latency:
    """The figures of one model, from what the stopwatch returned for each process."""
    times = [np.asarray(result["times_ns"]) / 1e6 for result in results]
    medians = [float(np.median(each)) for each in times]
    everything = np.concatenate(times)
    low, high = np.percentile(everything, [25, 75])
    middle = float(np.median(medians))
    return Latency(
        threads=threads,
        least_ms=float(everything.min()),
        median_ms=middle,
        spread=(max(medians) - min(medians)) / middle,
        quartiles_ms=float(high - low),
        process_medians_ms=tuple(medians),
        runs=len(everything),
        load_ms=min(float(result["load_ms"]) for result in results),
        peak_rss_mb=max(float(result["peak_rss_mb"]) for result in results),
        loaded_mb=max(float(result["loaded_mb"]) for result in results),
        settled=all(bool(result["settled"]) for result in results),
        io=str(results[0]["io"]),
    )


def compared(found: Mapping[str, Latency]) -> dict[str, Latency]:
    """The same with the speed of each relative to the first."""
    first = next(iter(found.values()))
    return {name: each if each is first else _against(first, each) for name, each in found.items()}


def _against(first: Latency, each: Latency) -> Latency:
    rounds = zip(first.process_medians_ms, each.process_medians_ms, strict=True)
    low, high = interval_of([theirs / ours for theirs, ours in rounds])
    least = first.least_ms / each.least_ms
    verdict: Verdict = "not resolved"
    if _enough(first, each):
        verdict = "faster" if min(low, least) > 1 else "slower" if max(high, least) < 1 else verdict
    return replace(
        each,
        speedup_least=least,
        speedup_median=first.median_ms / each.median_ms,
        speedup_low=low,
        speedup_high=high,
        verdict=verdict,
    )


def _enough(first: Latency, each: Latency) -> bool:
    """Whether rounds that agree say something.

    Five of equal models agree by chance once in 16 times. Where there are fewer, no process of one model may
    be as fast as any of the other: with three rounds chance does that once in 10 times, with four in 35.
    """
    if each.processes >= _SURE_ROUNDS:
        return True
    ours, theirs = each.process_medians_ms, first.process_medians_ms
    return each.processes >= FEWEST_ROUNDS and (max(ours) < min(theirs) or max(theirs) < min(ours))


def interval_of(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what `values` are drawn from lies, however that is distributed.

    The k-th lowest and the k-th highest enclose it with a probability that is binomial, not an assumption
    about the noise (Conover, Practical Nonparametric Statistics, section 3.2). All values up to seven count,
    from eight on the lowest and highest may be odd ones out, and so on.
    """
    ordered, count = sorted(values), len(values)
    k = 1
    while 1 - 2 * sum(math.comb(count, i) for i in range(k + 1)) / 2**count >= _COVERED:
        k += 1
    return ordered[k - 1], ordered[count - k]

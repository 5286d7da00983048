"""Token-wise clipping: activation ranges chosen by what they do to the network's own output.

A few odd tokens set the range of an activation, and cutting them off costs little. Coarse stage: one share α
for all activations; each range is what is left when the tokens beyond the quantile α of the tokens' own
extremes are cut back. Fine stage: the ranges one by one, each end made a little narrower or wider, in the
order in which the output minds. Both judge by the output of the quantized model against that of the float
model, on a slice of the data, and a change counts only if both halves of the slice gain by it: what helps on
a few samples by chance does not help on others.

Source: Token-Wise Clipping, Outlier Suppression (arXiv 2209.13325, sec. 4.2); its fine stage learns by
gradients, this one needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxq.calibration import DataSource
from onnxq.calibration.tokens import masks_of, tokens_by_sample
from onnxq.contract import AnyPass, names_wanted
from onnxq.passes.quantize.ranges import Interval
from onnxq.planning.adjustable import AdjustableModel
from onnxq.planning.live_tokens import live_tokens
from onnxq.runtime import Feeds, SessionSettings, open_session
from onnxq.statistics import Statistic, Statistics

Report = Callable[[int, int], None]
"""Told of progress: trials done, and trials in all at most."""

_REACH = {8: 0.1, 7: 0.2, 6: 0.3, 5: 0.6}
"""How far α falls, by bits; further below 5."""
_KEPT = 16 * 2**20
"""Elements of the float outputs that are kept to compare with."""


@dataclass(frozen=True)
class Clipping:
    """Activation ranges, and how they were found.

    Attributes:
        alpha: The share of the coarse stage; 1 cuts nothing.
        ranges: Least and greatest number covered, by activation.
        error_by_alpha: Error of the outputs for every share that was tried, relative to their energy.
        before: Error with the ranges that the stage started from.
        after: Error with `ranges`.
    """

    alpha: float
    ranges: Mapping[str, Interval]
    error_by_alpha: Mapping[float, float] = field(default_factory=dict)
    before: float = float("nan")
    after: float = float("nan")


@dataclass(frozen=True)
class ClippingSettings:
    """How ranges are searched.

    Attributes:
        samples: Samples to judge on, at most.
        step: Between two shares of the coarse stage.
        patience: Shares in a row without gain after which the coarse stage ends.
        gain: Part by which the error has to fall on both halves of the samples, to change anything.
        margin: Part by which the ranges of the coarse stage are widened.
        passes: Times that the fine stage goes through all activations.
        trials: Trials of the fine stage, at most.
        outputs: Outputs that count; all of them if None.
        threads: Threads of the runtime.
    """

    samples: int = 32
    step: float = 0.01
    patience: int = 6
    gain: float = 0.005
    margin: float = 0.0
    passes: int = 1
    trials: int = 160
    outputs: tuple[str, ...] | None = None
    threads: int = 1


def clipping_needs(rounding: AnyPass, model: ir.Model) -> dict[Statistic, set[str]]:
    """Names of values, by the kind of statistic that `rounding` and the clipping of its ranges want."""
    wanted = names_wanted((rounding,), model)
    ranged = wanted.get(Statistic.CHANNEL_EXTREMES, set())
    for kind in (Statistic.TOKEN_EXTREMES, Statistic.ROWS):
        wanted.setdefault(kind, set()).update(ranged)
    return wanted


def coarse_clipping(
    model: ir.Model,
    quantized: ir.Model,
    source: DataSource,
    statistics: Statistics,
    settings: ClippingSettings | None = None,
    *,
    report: Report | None = None,
) -> Clipping:
    """One share α for all activations.

    Args:
        model: The float model that `quantized` was made of, names of activations being the same.
        quantized: What `QuantizeLinears` made of it.
        source: Data to judge on, best not what `statistics` come from.
        statistics: With token extremes of the quantized activations, and with rows of those of which some
            channels are multiplied by zero.
        settings: See there.
        report: Told of progress.

    Returns:
        Ranges of all activations with a fixed range; those the model came with, and α = 1, if no share is
        better by enough.
    """
    settings = settings or ClippingSettings()
    trial = _Trial(model, quantized, source, settings)
    tokens = live_tokens(model, statistics, trial.adjustable.quantizers)
    start = trial.adjustable.ranges
    before = trial.errors(start)
    shares = _shares(trial.bits, settings.step)
    tried: dict[float, float] = {}
    best, best_errors, best_ranges, idle = 1.0, before, start, 0
    for number, alpha in enumerate(shares, 1):
        ranges = {**start, **{name: part.clipped(alpha, settings.margin) for name, part in tokens.items()}}
        errors = trial.errors(ranges)
        tried[alpha] = float(errors.sum())
        if _gains(best_errors, errors, settings.gain if best == 1.0 else 0.0):
            best, best_errors, best_ranges, idle = alpha, errors, ranges, 0
        else:
            idle += 1
        if report is not None:
            report(number, len(shares))
        if idle > settings.patience:
            break
    return Clipping(best, best_ranges, tried, float(before.sum()), float(best_errors.sum()))


def fine_clipping(
    model: ir.Model,
    quantized: ir.Model,
    source: DataSource,
    start: Clipping | None = None,
    settings: ClippingSettings | None = None,
    *,
    report: Report | None = None,
) -> Clipping:
    """Each end of each range by itself, first those that the output minds most.

    Args:
        model: The float model.
        quantized: What `QuantizeLinears` made of it.
        source: Data to judge on.
        start: Ranges to start from; those that `quantized` comes with if None.
        settings: See there.
        report: Told of progress.
    """
    settings = settings or ClippingSettings()
    trial = _Trial(model, quantized, source, settings)
    ranges = {**trial.adjustable.ranges, **(start.ranges if start is not None else {})}
    before = best = trial.errors(ranges)
    done = 0

    def attempt(name: str, factors: Interval) -> tuple[np.ndarray, Interval]:
        nonlocal done
        done += 1
        if report is not None:
            report(min(done, settings.trials), settings.trials)
        low, high = ranges[name]
        other = (low * factors[0], high * factors[1])
        return trial.errors({**ranges, name: other}), other

    sensitive = {name: attempt(name, (0.8, 0.8)) for name in ranges}
    order = sorted(sensitive, key=lambda name: -abs(float((sensitive[name][0] - best).sum())))
    for strength in [0.5**number for number in range(settings.passes)]:
        for name in order:
            for factors in _moves(ranges[name], strength):
                for _ in range(3):  # as long as it pays to go on in this direction
                    if done >= settings.trials:
                        break
                    errors, other = attempt(name, factors)
                    if not _gains(best, errors, settings.gain / 10):
                        break
                    best, ranges[name] = errors, other
    alpha = start.alpha if start is not None else 1.0
    tried = start.error_by_alpha if start is not None else {}
    return Clipping(alpha, ranges, tried, float(before.sum()), float(best.sum()))


class _Trial:
    """The quantized model on some samples, and the float model's outputs to compare with."""

    def __init__(
        self, model: ir.Model, quantized: ir.Model, source: DataSource, settings: ClippingSettings
    ) -> None:
        self.adjustable = AdjustableModel(quantized, threads=settings.threads)
        every = (each.params.bits for found in self.adjustable.quantizers.values() for each in found)
        self.bits = min(every, default=8)
        self.source = source.select(source.indices[: settings.samples])
        self.names = settings.outputs or self.adjustable.outputs
        session = open_session(model, SessionSettings(threads=settings.threads, level="all"))
        self.batches: list[tuple[Feeds, dict[str, np.ndarray]]] = []
        for batch in self.source.batches():
            exact = session.run(batch.feeds, list(self.names))
            self.batches.append((batch.feeds, self._rows(batch.feeds, batch.samples, exact)))
        self.samples = [batch.samples for batch in self.source.batches()]

    def errors(self, ranges: Mapping[str, Interval]) -> np.ndarray:
        """Error of the outputs, relative to their energy, on the batches of even and of odd number: [2]."""
        error, energy = np.zeros((2, len(self.names))), np.zeros((2, len(self.names)))
        for number, ((feeds, exact), samples) in enumerate(zip(self.batches, self.samples, strict=True)):
            given = self._rows(feeds, samples, self.adjustable.run(feeds, ranges))
            for place, name in enumerate(self.names):
                if name in exact:
                    difference = (given[name] - exact[name]).reshape(-1)
                    error[number % 2, place] += float(np.dot(difference, difference))
                    energy[number % 2, place] += float(np.square(exact[name], dtype=np.float64).sum())
        relative: np.ndarray = (error / np.maximum(energy, 1e-30)).sum(axis=1)
        return np.where(np.isfinite(relative), relative, np.inf)

    def _rows(self, feeds: Feeds, samples: int, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The float outputs as tokens [T, C], without padding, and of large ones only some tokens."""
        masks = masks_of(dict(feeds), self.source.specs)
        found = {}
        for name in self.names:
            array = np.asarray(outputs[name])
            if array.dtype.kind != "f" or not array.size:
                continue
            rows = np.concatenate([part for _, part in tokens_by_sample(array, samples, masks)])
            most = max(_KEPT // max(len(self.source), 1) * samples // rows.shape[1], 1)
            found[name] = rows[:: -(-len(rows) // most)].astype(np.float32)
        return found


def _shares(bits: int, step: float) -> list[float]:
    """Shares to try: evenly spaced, and some more close to 1, where a few tokens among thousands decide."""
    count = round(_REACH.get(bits, 0.9) / step)
    return [1.0, *(round(1 - part * step, 6) for part in (0.05, 0.1, 0.25, 0.5, *range(1, count + 1)))]


def _gains(before: np.ndarray, after: np.ndarray, gain: float) -> bool:
    """Whether the error is smaller by more than `gain` on both halves of the data."""
    counted = before > 0
    return bool((after < before * (1 - gain))[counted].all() and after.sum() < before.sum())


def _moves(interval: Interval, strength: float) -> Iterator[Interval]:
    """Factors to try on the ends of a range: each end narrower and wider."""
    narrower, wider = 1 - 0.1 * strength, 1 + 0.1 * strength
    low, high = interval
    if low < 0 and high > 0:
        yield narrower, narrower
    if high > 0:
        yield 1.0, narrower
        yield 1.0, wider
    if low < 0:
        yield narrower, 1.0
        yield wider, 1.0

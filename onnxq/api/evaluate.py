"""How close two models are on real data, and how fast: the figures that `optimize` stands or falls with."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.api.opening import Opening
from onnxq.calibration import DataSource
from onnxq.calibration.inputs import Feeds
from onnxq.calibration.tokens import masks_of
from onnxq.errors import UsageProblem
from onnxq.lookup import find_function
from onnxq.passes.quantize.ranges import Interval
from onnxq.planning.switches import SwitchedModel
from onnxq.runtime import Contender, Latency, SessionSettings, measure_latency, open_session
from onnxq.targets import TARGETS
from onnxq.verify import Comparison, compare

Advance = Callable[[int, int], None]


def measure_fidelity(
    reference: ir.Model, candidate: ir.Model, source: DataSource, threads: int, advance: Advance | None = None
) -> Comparison:
    """Outputs of both models on all of `source`, as the runtime runs them by default; padding left out."""
    return measure_fidelities(reference, {"": candidate}, source, threads, advance)[""]


def measure_fidelities(
    reference: ir.Model,
    candidates: Mapping[str, ir.Model],
    source: DataSource,
    threads: int,
    advance: Advance | None = None,
) -> dict[str, Comparison]:
    """The same of several candidates, one open at a time; what the reference says is kept while it fits."""
    settings = SessionSettings(threads=threads)
    answers, found = _Answers(reference, settings), dict[str, Comparison]()
    done, total = 0, len(source) * len(candidates)
    for name, candidate in candidates.items():
        session, comparison = open_session(candidate, settings), Comparison()
        for number, batch in enumerate(source.batches()):
            expected = answers.of(number, batch.feeds)
            keep = _kept_rows(batch.feeds, source, expected)
            comparison = comparison.merge(compare(expected, session.run(batch.feeds), keep=keep))
            done += batch.samples
            if advance is not None:
                advance(done, total)
        found[name] = comparison
    return found


def measure_effects(
    model: ir.Model,
    ranges: Mapping[str, Interval],
    source: DataSource,
    threads: int,
    advance: Advance | None = None,
) -> dict[str, float]:
    """Noise over signal of `model`'s outputs with one activation of its linears rounded to 8 bits at a time.

    Args:
        model: A float model.
        ranges: What the codes cover, by activation.
        source: Data to measure on.
        threads: Threads of the runtime.
        advance: Told of progress.

    Returns:
        By activation, the figure of the output that minds most.
    """
    switched = SwitchedModel(model, ranges, threads=threads)
    exact = open_session(model, SessionSettings(threads=threads))
    signal, noise = (
        defaultdict[str, float](float),
        {name: defaultdict[str, float](float) for name in switched.activations},
    )
    done, total = 0, len(source) * len(noise)
    for batch in source.batches():
        outputs = exact.run(batch.feeds)
        expected = {name: each for name, each in outputs.items() if _is_measured(each)}
        keep = _kept_rows(batch.feeds, source, expected)
        for name, each in expected.items():
            signal[name] += _energy(each, keep.get(name))
        for activation, found in noise.items():
            rounded = switched.run(batch.feeds, (activation,))
            for name, each in expected.items():
                with np.errstate(invalid="ignore"):  # what is infinite in both
                    found[name] += _energy(rounded[name] - each, keep.get(name))
            done += batch.samples
            if advance is not None:
                advance(done, total)
    loud = [name for name, energy in signal.items() if energy > 0]
    return {
        activation: max((found[name] / signal[name] for name in loud), default=0.0)
        for activation, found in noise.items()
    }


def _is_measured(output: Any) -> bool:
    return isinstance(output, np.ndarray) and output.dtype.kind == "f"


def _energy(values: np.ndarray, keep: np.ndarray | None) -> float:
    """Sum of squares of what is finite, in the rows that count; one pass, for logits are many."""
    kept = values if keep is None else values[keep]
    square = np.square(kept, dtype=np.float32 if kept.dtype == np.float16 else None)
    total = float(square.sum(dtype=np.float64))
    return total if math.isfinite(total) else float(square[np.isfinite(square)].sum(dtype=np.float64))


class _Answers:
    """A model's outputs batch by batch, run once as long as they fit into memory."""

    ROOM = 256 * 2**20
    """Bytes of outputs to keep."""

    def __init__(self, model: ir.Model, settings: SessionSettings) -> None:
        self._session = open_session(model, settings)
        self._kept: dict[int, dict[str, Any]] = {}
        self._held = 0

    def of(self, number: int, feeds: Feeds) -> dict[str, Any]:
        """The outputs on batch `number`."""
        if number in self._kept:
            return self._kept[number]
        outputs = self._session.run(feeds)
        size = sum(getattr(output, "nbytes", 0) for output in outputs.values())
        if self._held + size <= self.ROOM:
            self._kept[number] = outputs
            self._held += size
        return outputs


@dataclass(frozen=True)
class Pace:
    """How long, how often and with what models are timed.

    Attributes:
        rounds: Processes for each model.
        seconds: Measured in each of them.
        threads: Threads of the runtime.
        in_doubt: Processes for each model where the first leave it open whether one is slower; 0 for no more.
        provider: Execution provider.
        patience: Seconds that these may take; of large models there are fewer.
    """

    rounds: int
    seconds: float
    threads: int
    in_doubt: int = 0
    provider: str = "cpu"
    patience: float = math.inf

    def again(self, took: float) -> Pace:
        """The pace of a second look, when the first took so many seconds."""
        affordable = self.patience * self.rounds / max(took, 1e-9)
        return replace(self, rounds=int(min(self.in_doubt, affordable)))


def time_pairs(
    reference: ir.Model,
    candidate: ir.Model,
    source: DataSource,
    cases: Sequence[Mapping[str, tuple[int, ...]]],
    pace: Pace,
) -> list[tuple[dict[str, tuple[int, ...]], dict[str, Latency]]]:
    """Latency of both models in each case, each in processes of its own, with the shapes they were timed at.

    In a case without shapes they run on the first batch of the data. With an accelerator's own provider the
    candidate is opened as a file for it wants to be.
    """
    models: dict[str, ir.Model | Contender] = {"fp32": reference, "onnxq": candidate}
    if (target := TARGETS.get(pace.provider)) is not None:
        models["onnxq"] = Contender(candidate, Opening.of(candidate, target).settings())
    found = []
    for case in cases:
        feeds = None if case else next(iter(source))
        started = time.perf_counter()
        timed = _timed(models, feeds, case, pace)
        again = pace.again(time.perf_counter() - started)
        if pace.rounds < again.rounds and any(each.may_be_slower for each in timed.values()):
            timed = _timed(models, feeds, case, again)
        told = dict(case) or {name: array.shape for name, array in (feeds or {}).items()}
        found.append((told, timed))
    return found


def _timed(
    models: Mapping[str, ir.Model | Contender],
    feeds: Feeds | None,
    shapes: Mapping[str, tuple[int, ...]],
    pace: Pace,
) -> dict[str, Latency]:
    return measure_latency(
        models,
        feeds,
        shapes=shapes,
        threads=pace.threads,
        rounds=pace.rounds,
        seconds=pace.seconds,
        provider=pace.provider,
    )


def score_with(hook: str) -> Callable[[ir.Model], float]:
    """What ``module:function`` says of a model; it is called with an open session, higher is better.

    Raises:
        UsageProblem: There is no such function.
    """
    try:
        function = find_function(hook)
    except ImportError as error:
        raise UsageProblem(
            f"cannot evaluate with {hook!r}: {error}",
            hint="Name a function that takes an open session and returns a number: --eval module:function",
            slug="no-such-function",
        ) from error
    return lambda model: float(function(open_session(model, SessionSettings())))


def _kept_rows(feeds: Feeds, source: DataSource, outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """For each output with a row a position, which positions are data."""
    masks = masks_of(feeds, source.specs)
    kept: dict[str, np.ndarray] = {}
    for name, output in outputs.items():
        shape = getattr(output, "shape", ())
        fitting = [mask for mask in masks if len(shape) > 2 and shape[:2] == mask.shape]
        if fitting and len(shape) == 3:
            kept[name] = fitting[0]
    return kept

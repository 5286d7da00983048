"""Latency that can be compared: each model in processes of its own, taking turns, stated as a ratio.

A process of ONNX Runtime can be slow for its whole life, for reasons outside the model, and a busy machine
slows whoever runs at that moment. So each model gets several fresh processes in alternated order. The least
time is the steadiest figure; the ratios of the rounds, whose processes ran next to each other, tell whether a
difference is one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq import files
from onnxq.errors import BackendError, OnnxqError, UsageProblem
from onnxq.runtime.delivery import deliver, discard
from onnxq.runtime.feeds import Shapes, feeds_for, ports_of
from onnxq.runtime.latency import Latency, compared, latency_of
from onnxq.runtime.native import Feeds
from onnxq.runtime.places import Here, Job, Place
from onnxq.runtime.providers import provider_name
from onnxq.runtime.settings import SessionSettings
from onnxq.runtime.tensors import exchanged

Model = ir.Model | Path | str
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Contender:
    """A model to time under settings of its own, such as fp32 without a harmful fusion."""

    model: Model
    settings: SessionSettings


@dataclass(frozen=True)
class Watch:
    """How models are timed.

    Attributes:
        threads: Threads inside one operator.
        rounds: Processes a model; every second round goes backwards.
        seconds: Measured time a process, after a warm-up of at least a third of it.
        warmup: Longest warm-up in seconds; it ends before that once runs no longer get faster. None for as
            long as is measured.
        provider: Execution provider.
        provider_options: Its options.
        processors: Processors that the processes keep to; none for any, None for one a thread.
        limit: Seconds that one process may take.
    """

    threads: int = 1
    rounds: int = 3
    seconds: float = 1.5
    warmup: float | None = None
    provider: str = "cpu"
    provider_options: tuple[tuple[str, str], ...] = ()
    processors: tuple[int, ...] | None = None
    limit: float = 600.0


def measure_latency(
    models: Mapping[str, Model | Contender],
    feeds: Feeds | None = None,
    *,
    shapes: Shapes | None = None,
    threads: int = 1,
    rounds: int = 3,
    seconds: float = 1.5,
    provider: str = "cpu",
    timeout: float = 600.0,
) -> dict[str, Latency]:
    """Time models against the first of them.

    Args:
        models: By name; the first is what the others are compared with. A `Contender` brings its own
            settings, of which threads and provider are replaced by those given here.
        feeds: Inputs for all of them; None for random ones (`feeds_for`) of the given shapes.
        shapes: Shapes by input name, where `feeds` is None.
        threads: Threads inside one operator; the processes are pinned to as many cores where possible.
        rounds: Processes a model; every second round goes backwards.
        seconds: Measured time a process, after a warm-up.
        provider: Execution provider of all of them.
        timeout: Seconds that one process may take.

    Raises:
        BackendError: A model does not open or run, or its process crashed or took too long.
    """
    watch = Watch(threads, rounds, seconds, provider=provider, limit=timeout)
    with open_contest(models, watch) as contest:
        return contest.measure(contest.feeds(shapes) if feeds is None else dict.fromkeys(models, feeds))


class Contest:
    """Models that are ready to be timed at some place. Made by `open_contest`.

    Attributes:
        jobs: What the stopwatch is told of each model, less its inputs.
        threads: Threads inside one operator.
    """

    def __init__(
        self, models: Mapping[str, Model], jobs: Mapping[str, Job], watch: Watch, place: Place
    ) -> None:
        self.jobs = jobs
        self.threads = watch.threads
        self._models = models
        self._watch = watch
        self._place = place

    def feeds(self, shapes: Shapes | None, seed: int = 0) -> dict[str, Feeds]:
        """Random inputs of the given shapes for each model.

        Raises:
            UsageProblem: The shapes do not fit a model, which is named.
        """
        found: dict[str, Feeds] = {}
        for name, model in self._models.items():
            graph = model if isinstance(model, ir.Model) else files.load(model)
            with _naming(name, self._models):
                found[name] = feeds_for(ports_of(graph), shapes, seed)
        return found

    def measure(self, feeds: Mapping[str, Feeds], told: Told | None = None) -> dict[str, Latency]:
        """Time all models, in alternated rounds.

        Args:
            feeds: Inputs for each model.
            told: Told of progress: processes done, processes in all.
        """
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in self.jobs}
        total = self._watch.rounds * len(found)
        for turn in range(self._watch.rounds):
            for name in list(found)[:: -1 if turn % 2 else 1]:
                if told is not None:
                    told(sum(map(len, found.values())), total)
                with _naming(name, self._models):
                    job = _fed(self.jobs[name], feeds[name])
                    found[name].append(self._place.time(job, self._watch.limit))
        return compared({name: latency_of(self._watch.threads, each) for name, each in found.items()})

    def trace(self, name: str, feeds: Feeds, runs: int) -> list[dict[str, Any]]:
        """Every execution of an operator in `runs` + 1 runs of a model."""
        with _naming(name, self._models):
            return self._place.trace(_fed(self.jobs[name], feeds), runs, self._watch.limit)


@contextlib.contextmanager
def open_contest(
    models: Mapping[str, Model | Contender], watch: Watch, place: Place | None = None
) -> Iterator[Contest]:
    """Bring models to a place and say how they are to be timed there.

    Raises:
        UsageProblem: There is nothing to time.
        BackendError: The provider is not there.
    """
    if not models or watch.rounds < 1:
        raise UsageProblem("timing needs a model and a round", slug="nothing-to-time")
    place = place or Here()
    runtime = place.machine.runtime
    available = runtime.providers if runtime else ()
    provider = provider_name(watch.provider, available, place.name) if runtime else watch.provider
    pinned = place.processors_for(watch.threads) if watch.processors is None else list(watch.processors)
    with contextlib.ExitStack() as stack:
        plain, jobs = {}, {}
        for name, given in models.items():
            each = given if isinstance(given, Contender) else Contender(given, SessionSettings())
            plain[name] = each.model
            path = stack.enter_context(file_of(each.model))
            jobs[name] = _job(place.bring(path), each.settings, watch, provider, pinned)
        yield Contest(plain, jobs, watch, place)


def _job(model: str, settings: SessionSettings, watch: Watch, provider: str, pinned: Sequence[int]) -> Job:
    return {
        "model": model,
        "provider": provider,
        "provider_options": dict((*settings.provider_options, *watch.provider_options)),
        "threads": watch.threads,
        "level": settings.level,
        "disabled_optimizers": list(settings.disabled_optimizers),
        "config": [list(pair) for pair in settings.config],
        "cpus": list(pinned),
        "seconds": watch.seconds,
        "warmup": watch.seconds if watch.warmup is None else watch.warmup,
    }


def _fed(job: Job, feeds: Feeds) -> Job:
    """A job with its inputs, as the runtime takes them."""
    told = {name: exchanged(array) for name, array in feeds.items()}
    return {
        **job,
        "feeds": {name: array for name, (array, _) in told.items()},
        "foreign": {name: number for name, (_, number) in told.items() if number is not None},
    }


@contextlib.contextmanager
def _naming(name: str, models: Mapping[str, Any]) -> Iterator[None]:
    """Say which of several models an error is about."""
    try:
        yield
    except (UsageProblem, BackendError) as error:
        if len(models) < 2:
            raise
        kind: type[OnnxqError] = type(error)
        raise kind(f"{name}: {error.message}", hint=error.hint, slug=error.slug) from None


@contextlib.contextmanager
def file_of(model: Model) -> Iterator[Path]:
    """A model as a file: itself, or a copy for as long as the context lasts."""
    source, folder = deliver(model)
    try:
        if isinstance(source, str):
            yield Path(source)
            return
        with tempfile.TemporaryDirectory(prefix="onnxq-") as place:
            path = Path(place) / "model.onnx"
            path.write_bytes(source)
            yield path
    finally:
        discard(folder)

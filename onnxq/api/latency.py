"""Latency of several models, worth trusting: on this machine or on another, at several shapes."""

from __future__ import annotations

import contextlib
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxq.api import bench_records, records
from onnxq.api.opening import Opening, read_opening
from onnxq.api.stage import Progress, silent
from onnxq.errors import UsageProblem
from onnxq.files import load, read_parts
from onnxq.ir.walk import nodes
from onnxq.recipe import BenchSettings
from onnxq.report.results import BenchResult
from onnxq.runtime import Contender, Contest, Latency, Profile, SessionSettings, Watch, open_contest
from onnxq.runtime.device import Device
from onnxq.runtime.native import Feeds
from onnxq.runtime.places import Here, Place
from onnxq.runtime.profiling import RUNS, profile_of
from onnxq.runtime.providers import short_name
from onnxq.runtime.settings import PROVIDERS

_NORMS = frozenset({"LayerNormalization", "SkipLayerNormalization", "ReduceMean"})


@dataclass(frozen=True)
class Case:
    """One set of shapes: its label, and the inputs of each model."""

    label: str
    feeds: Mapping[str, Feeds]


@dataclass(frozen=True)
class Entrant:
    """A model to time: the file or graph, its size on disk, whether it normalizes, how it is to be opened."""

    model: ir.Model | Path
    size_bytes: int
    normalizes: bool
    opening: Opening | None = None


def bench(
    models: Sequence[str | Path] | Mapping[str, ir.Model],
    settings: BenchSettings | None = None,
    *,
    progress: Progress | None = None,
) -> BenchResult:
    """Time models, each in processes of its own and in alternated rounds, against the first of them.

    Args:
        models: Paths, or models by name. Paths are read through `onnxq.files` first, then timed as they are.
        settings: Threads, shapes, rounds, provider, machine.
        progress: Called with a stage in words, steps done and steps in all.

    Raises:
        UsageProblem: A shape fits no model, or the machine is none.
        BackendError: A model does not run, the provider is not there, or the machine cannot be reached.
    """
    settings, told = settings or BenchSettings(), progress or silent
    entrants = _entrants(models)
    with _place(settings, told) as place:
        threads = records.usable_threads(settings.threads, place.machine)
        watch = _watch(settings, threads)
        contenders = {
            name: Contender(each.model, _session(each, settings)) for name, each in entrants.items()
        }
        told(f"copying to {place.name}" if place.name else "reading the models", 0, 0)
        with open_contest(contenders, watch, place) as contest:
            cases = [_case(contest, shapes, settings.seed) for shapes in settings.cases]
            _refuse_twins(cases)
            found = [_measure(contest, case, told) for case in cases]
            profiles = _profiles(contest, cases, entrants, settings, told)
        machine = records.machine_record(threads, place.machine, place.python)
    return bench_records.result(
        machine,
        settings,
        {case.label: each for case, each in zip(cases, found, strict=True)},
        profiles,
        {name: each.size_bytes for name, each in entrants.items()},
        tuple(told for name, each in entrants.items() for told in _told_of(name, each.opening, settings)),
    )


def _entrants(models: Sequence[str | Path] | Mapping[str, ir.Model]) -> dict[str, Entrant]:
    if isinstance(models, Mapping):
        return {
            name: Entrant(model, records.weight_bytes(model), _normalizes(model))
            for name, model in models.items()
        }
    return dict(zip(_names(models), map(_entrant, models), strict=True))


def _entrant(path: str | Path) -> Entrant:
    """A file. What is a link, as in a hub's cache, may keep its data where the runtime does not look."""
    model = load(path)
    plain: ir.Model | Path = model if Path(path).is_symlink() else Path(path)
    return Entrant(plain, read_parts(path).size_bytes, _normalizes(model), read_opening(path))


def _is_heeded(opening: Opening | None, settings: BenchSettings) -> bool:
    """Whether a session file is for the provider that models are timed on."""
    asked = PROVIDERS.get(settings.provider.lower(), settings.provider)
    return opening is not None and opening.provider == short_name(asked)


def _session(entrant: Entrant, settings: BenchSettings) -> SessionSettings:
    """How a model is opened: as its session file says, less what the user says otherwise."""
    given = SessionSettings(disabled_optimizers=settings.disabled_optimizers)
    if entrant.opening is None or not _is_heeded(entrant.opening, settings):
        return given
    own = entrant.opening.settings()
    left_out = dict.fromkeys((*own.disabled_optimizers, *settings.disabled_optimizers))
    return replace(own, disabled_optimizers=tuple(left_out))


def _told_of(name: str, opening: Opening | None, settings: BenchSettings) -> Iterator[str]:
    """What a reader should know of how a model was opened."""
    if opening is None or not opening.options:
        return
    words = ", ".join(" = ".join(filter(None, (each.name, each.value))) for each in opening.options)
    if _is_heeded(opening, settings):
        yield f"{name} was opened as its session file says: {words}."
    else:
        yield f"{name} is for --provider {opening.provider}; its session file ({words}) was not heeded."


def _normalizes(model: ir.Model) -> bool:
    return any(node.op_type in _NORMS for node in nodes(model))


@contextlib.contextmanager
def _place(settings: BenchSettings, told: Progress) -> Iterator[Place]:
    if settings.host is None:
        yield Here()
        return
    told(f"logging in to {settings.host}", 0, 0)
    try:
        words = shlex.split(settings.ssh)
    except ValueError as error:
        raise UsageProblem(
            f"--ssh {settings.ssh!r} is no command: {error}",
            hint="e.g. --ssh 'ssh -i key'",
            slug="bad-setting",
        ) from None
    with Device(settings.host, python=settings.host_python, ssh=words or ["ssh"]) as device:
        yield device


def _watch(settings: BenchSettings, threads: int) -> Watch:
    return Watch(
        threads=threads,
        rounds=settings.rounds,
        seconds=settings.seconds,
        warmup=settings.warmup,
        provider=settings.provider,
        provider_options=tuple(settings.provider_options.items()),
        processors=settings.affinity,
        limit=settings.timeout,
    )


def _case(contest: Contest, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Case:
    """The inputs for some shapes, labelled in the user's words, or by what was chosen without any."""
    feeds = contest.feeds(shapes, seed)
    first = next(iter(feeds.values()))
    label = records.shape_label(shapes or {name: array.shape for name, array in first.items()})
    return Case(label or "no inputs", feeds)


def _refuse_twins(cases: Sequence[Case]) -> None:
    labels = [case.label for case in cases]
    twin = next((label for label in labels if labels.count(label) > 1), None)
    if twin is not None:
        raise UsageProblem(f"{twin} is asked for twice", hint="Once is enough.", slug="same-shape")


def _measure(contest: Contest, case: Case, told: Progress) -> dict[str, Latency]:
    return contest.measure(case.feeds, lambda done, total: told(f"timing at {case.label}", done, total))


def _profiles(
    contest: Contest,
    cases: Sequence[Case],
    entrants: Mapping[str, Entrant],
    settings: BenchSettings,
    told: Progress,
) -> dict[tuple[str, str], Profile]:
    """What each model spends its time on, by label and name, where someone has to know."""
    found = {}
    runs = RUNS if settings.ops else 2
    for case in cases:
        for number, (name, entrant) in enumerate(entrants.items()):
            # The baseline of a comparison is looked at once, for what makes it look worse than it is.
            baseline = number == 0 and case is cases[0] and len(entrants) > 1 and entrant.normalizes
            if settings.ops or settings.provider != "cpu" or baseline:
                told(f"tracing at {case.label}", 0, 0)
                found[case.label, name] = profile_of(contest.trace(name, case.feeds[name], runs), runs)
    return found


def _names(paths: Sequence[str | Path]) -> list[str]:
    """A name for each file: its own, and more of its path where two are called the same."""
    given = [Path(path) for path in paths]
    for depth in itertools.count(1):
        names = ["/".join(path.parts[-depth:]) for path in given]
        if len(set(names)) == len(names):
            return names
        if depth > max(len(path.parts) for path in given):
            return [f"{name} ({number})" for number, name in enumerate(names, 1)]
    raise AssertionError("counting never ends")

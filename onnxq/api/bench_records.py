"""From timings and traces to what `bench` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from onnxq.api import records
from onnxq.recipe import BenchSettings
from onnxq.report import figures
from onnxq.report.bench_rows import MemoryRow, NodeRow, OperatorRow, PlacementRow
from onnxq.report.measures import Machine
from onnxq.report.results import BenchResult
from onnxq.runtime import PROVIDERS, Latency, Profile
from onnxq.runtime.latency import FEWEST_ROUNDS, compared
from onnxq.runtime.providers import short_name

NOISY = 0.25
"""Range of the processes' medians over their median, above which a figure says little."""
SLOWEST = 10
"""Nodes of each model that are told."""
_SCALAR_SHARE = 0.05
"""Of the baseline's time in a scalar kernel, from which on it is told."""
_SKIP_NORM = "SkipLayerNormalization"
_FEW = 4
_CLOSE = 1.05
"""How far the ratio of least times may lie outside the interval of the rounds without a word."""

Timed = Mapping[str, Mapping[str, Latency]]
Profiles = Mapping[tuple[str, str], Profile]


def result(
    machine: Machine,
    settings: BenchSettings,
    timed: Timed,
    profiles: Profiles,
    sizes: Mapping[str, int],
    opened: tuple[str, ...] = (),
) -> BenchResult:
    """Everything that `bench` found.

    Args:
        machine: Where it was.
        settings: How it was.
        timed: Latencies by label of the shape and name of the model.
        profiles: Traces by label and name.
        sizes: Bytes on disk by name.
        opened: What to know of how models were opened.
    """
    shown = profiles if settings.ops else {}
    elsewhere = profiles if settings.provider != "cpu" else {}
    return BenchResult(
        machine=machine,
        timings=tuple(row for label, found in timed.items() for row in records.timing_rows(found, label)),
        rounds=settings.rounds,
        provider=settings.provider,
        hints=(*opened, *_hints(settings, timed, profiles)),
        host=settings.host or "",
        copies=all(each.io == "host" for found in timed.values() for each in found.values()),
        disabled_optimizers=settings.disabled_optimizers,
        memory=tuple(
            _memory_row(name, label, latency, sizes[name])
            for label, found in timed.items()
            for name, latency in found.items()
        ),
        operators=tuple(row for key, each in shown.items() for row in _operator_rows(*key, each)),
        nodes=tuple(row for key, each in shown.items() for row in _node_rows(*key, each)),
        placements=tuple(row for key, each in elsewhere.items() for row in _placement_rows(*key, each)),
    )


def _memory_row(model: str, shape: str, latency: Latency, size: int) -> MemoryRow:
    peak = round(latency.peak_rss_mb * 2**20) or None
    loaded = round(latency.loaded_mb * 2**20) if peak else None
    return MemoryRow(model, shape, size, latency.load_ms, loaded, peak)


def _operator_rows(shape: str, model: str, profile: Profile) -> Iterator[OperatorRow]:
    counts, total = Counter(node.op for node in profile.nodes), profile.us or 1.0
    for op, us in profile.by_op.items():
        yield OperatorRow(model, shape, op, counts[op], us, us / total)


def _node_rows(shape: str, model: str, profile: Profile) -> Iterator[NodeRow]:
    total = profile.us or 1.0
    for node in profile.nodes[:SLOWEST]:
        yield NodeRow(model, shape, node.node, node.op, node.us, node.us / total)


def _placement_rows(shape: str, model: str, profile: Profile) -> Iterator[PlacementRow]:
    for provider, count in profile.by_provider.items():
        ops = Counter(node.op for node in profile.nodes if node.provider == provider)
        yield PlacementRow(model, shape, provider, count, dict(ops.most_common()))


def _hints(settings: BenchSettings, timed: Timed, profiles: Profiles) -> Iterator[str]:
    """What to know before quoting a figure."""
    yield from _doubts(timed)
    noisy = _which(timed, lambda each: each.spread > NOISY)
    if noisy:
        yield f"The processes of {noisy} disagree by over {NOISY:.0%}: quote the least times."
    unsettled = _which(timed, lambda each: not each.settled)
    if unsettled:
        yield f"{unsettled} still got faster when the warm-up ended: --warmup with more seconds."
    if settings.provider != "cpu":
        yield from _elsewhere(settings, profiles)
        if settings.ops:
            yield "An accelerator's operators are timed as they are launched, not as they end."
    else:
        yield from _scalar_norm(settings, timed, profiles)


def _doubts(timed: Timed) -> Iterator[str]:
    """Differences that are none, or whose size is uncertain."""
    for label, found in timed.items():
        first = next(iter(found))
        for name, each in found.items():
            told = _doubt(each)
            if told:
                yield f"{name} against {first} at {label}: {told}"
        yield from _close_seconds(label, dict(list(found.items())[1:]))


def _close_seconds(label: str, rivals: Mapping[str, Latency]) -> Iterator[str]:
    """Models that the rounds do not tell from the fastest of those that are compared with the first."""
    fast = {name: each for name, each in rivals.items() if each.processes >= FEWEST_ROUNDS}
    if len(fast) < 2:
        return
    best = max(fast, key=lambda name: fast[name].speedup_least)
    against = compared({best: fast[best], **fast})
    close = [name for name, each in against.items() if name != best and each.verdict == "not resolved"]
    if close:
        yield f"{best} against {', '.join(close)} at {label}: not resolved."


def _doubt(each: Latency) -> str:
    span = f"{figures.ratio(each.speedup_low)} to {figures.ratio(each.speedup_high)}"
    if each.verdict == "not resolved" and each.processes < FEWEST_ROUNDS:
        return f"not resolved, which takes {FEWEST_ROUNDS} rounds at least."
    if each.verdict == "not resolved":
        return (
            f"not resolved, the rounds lie within {span}. "
            "More --rounds or a quieter machine may tell them apart."
        )
    if each.verdict and not _agrees(each):
        least = figures.ratio(each.speedup_least)
        return (
            f"{least} by least times, {span} by the rounds. The machine was busy: how much it is stays open."
        )
    return ""


def _agrees(each: Latency) -> bool:
    """Whether the least times say the same as the rounds, about."""
    return each.speedup_low / _CLOSE <= each.speedup_least <= each.speedup_high * _CLOSE


def _which(timed: Timed, wanted: Callable[[Latency], bool]) -> str:
    """The models that something is true of at any shape, in words."""
    return ", ".join(
        dict.fromkeys(name for found in timed.values() for name, each in found.items() if wanted(each))
    )


def _elsewhere(settings: BenchSettings, profiles: Profiles) -> Iterator[str]:
    """Nodes that the provider did not take."""
    asked = PROVIDERS.get(settings.provider.lower(), settings.provider)
    for (label, name), profile in profiles.items():
        strays = [node for node in profile.nodes if node.provider != asked]
        total, ops = len(profile.nodes), Counter(node.op for node in strays)
        where = ", ".join(dict.fromkeys(short_name(node.provider) for node in strays))
        most = ", ".join(f"{op} {count}" for op, count in ops.most_common(_FEW))
        if strays and len(strays) == total:
            told = f"ran on {short_name(asked)} at {label}, but on {where}."
            yield f"None of the {total} nodes of {name} {told}"
        elif strays:
            more = ", ..." if len(ops) > _FEW else ""
            yield f"{len(strays)} of {total} nodes of {name} ran on {where} at {label}: {most}{more}."


def _scalar_norm(settings: BenchSettings, timed: Timed, profiles: Profiles) -> Iterator[str]:
    """A baseline that the runtime slows down by itself makes everybody else look fast."""
    label, found = next(iter(timed.items()))
    first = next(iter(found))
    profile = profiles.get((label, first))
    if len(found) < 2 or profile is None or not profile.us:
        return
    share = profile.by_op.get(_SKIP_NORM, 0.0) / profile.us
    if share >= _SCALAR_SHARE:
        yield (
            f"{first} spends {figures.percent(share)} of its time in {_SKIP_NORM}, a scalar kernel that "
            "onnxruntime fuses by itself. A fairer baseline is timed with --disable-optimizer "
            "SkipLayerNormFusion --disable-optimizer BiasSkipLayerNormFusion."
        )

"""Pictures as inline SVG: latency bars, the error of each layer, channel ranges before and after.

Colours are CSS classes, so that one picture serves a light page, a dark page and paper.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from onnxq.report import figures
from onnxq.report.bench_rows import OperatorRow
from onnxq.report.measures import Timing
from onnxq.report.rows import ChannelPicture, FrontRow, LayerRow

WIDTH = 900
_BINS = 240
"""Strokes in one channel picture; wider layers show the largest channel of each bin."""
_COLOURS = 9
"""Operators with a colour of their own."""
_DECADES = 5
"""Orders of magnitude that a channel picture shows at most, below its largest channel."""


def latency_bars(timings: Sequence[Timing]) -> str:
    """A bar of least time for each model, grouped by shape; the line beyond it reaches to the median.

    Where the medians of single processes are known, each is a dot on that line, which reaches to the last.
    """
    longest = max((max(row.least_ms, _reach_ms(row), 1e-9) for row in timings), default=1.0)
    marks: list[str] = []
    top, shape = 0.0, None
    for row in timings:
        if row.shape != shape:
            shape, top = row.shape, top + 26
            marks.append(_text(shape, 0, top - 8, "strong"))
        marks.append(_latency_bar(row, top, 600 / longest))
        top += 26
    return _svg("Least latency of each model", top + 4, marks)


def layer_errors(layers: Sequence[LayerRow]) -> str:
    """A dot for each measured layer: its place in the graph across, its own SQNR upwards (more is better)."""
    rows = [(index, row) for index, row in enumerate(layers) if _is_finite(row.sqnr_db)]
    values = [row.sqnr_db or 0.0 for _, row in rows]
    ticks = _ticks(min(values, default=0.0), max(values, default=1.0))
    left, right, top, bottom = 44.0, WIDTH - 8.0, 12.0, 210.0
    scale = (bottom - top) / (ticks[-1] - ticks[0])

    def height(value: float) -> float:
        return bottom - (value - ticks[0]) * scale

    marks = [_grid(height(tick), left, right, f"{tick:g} dB") for tick in ticks]
    step = (right - left - 20) / max(len(layers) - 1, 1)
    for index, row in rows:
        place, level = left + 10 + index * step, height(row.sqnr_db or 0.0)
        told = f"{index}: {row.name}, {row.decision}, {figures.decibels(row.sqnr_db)}"
        marks.append(_line(place, bottom, place, level, "stem"))
        marks.append(_dot(place, level, _series(row.decision), told))
    for index, row in sorted(rows, key=lambda pair: pair[1].sqnr_db or 0.0)[:3]:
        level = height(row.sqnr_db or 0.0)
        beside = level - 8 if level > bottom - 20 else level + 16
        marks.append(_text(str(index), left + 10 + index * step, beside, "note mid"))
    marks.append(_text(f"layers in graph order, 0 to {len(layers) - 1}", right, bottom + 18, "note end"))
    return _svg("Signal to quantization noise of each layer", bottom + 26, marks)


def front_curve(rows: Sequence[FrontRow]) -> str:
    """A dot for each plan: what it costs across, how far its linears are above their noise upwards."""
    known = [(row, -10 * math.log10(row.error)) for row in rows if row.error > 0]
    if len(known) < 2:
        return ""
    ticks = _ticks(min(level for _, level in known), max(level for _, level in known))
    left, right, top, bottom = 44.0, WIDTH - 8.0, 12.0, 210.0
    costs = [row.cost for row, _ in known]
    scale = (right - left - 24) / max(max(costs) - min(costs), 1e-12)
    marks = [
        _grid(
            bottom - (tick - ticks[0]) * (bottom - top) / (ticks[-1] - ticks[0]), left, right, f"{tick:g} dB"
        )
        for tick in ticks
    ]
    for row, level in known:
        across = left + 12 + (row.cost - min(costs)) * scale
        up = bottom - (level - ticks[0]) * (bottom - top) / (ticks[-1] - ticks[0])
        told = f"{row.cost / min(costs):.3f} times the cheapest, {level:.1f} dB: {row.step or 'the cheapest'}"
        marks.append(_dot(across, up, "ours" if row.chosen else "fp32", told))
        if row.chosen:
            marks.append(_text("this one", across, up - 9, "note mid"))
    foot = f"expected cost of all linears, 1 to {max(costs) / min(costs):.2f} times the cheapest plan's"
    marks.append(_text(foot, right, bottom + 18, "note end"))
    return _svg("Plans: cost against signal to noise", bottom + 26, marks)


def channel_ranges(picture: ChannelPicture) -> str:
    """Magnitude of each channel on a logarithmic scale, before on the left and after on the right."""
    low, high = _decades((*picture.before, *picture.after))
    left, top, bottom, gap = 44.0, 24.0, 170.0, 24.0
    panel = (WIDTH - left - gap) / 2
    right = left + panel + gap

    def height(value: float) -> float:
        level = min(max(math.log10(value), low), high) if value > 0 else low
        return bottom - (level - low) / (high - low) * (bottom - top)

    marks = []
    for level, label in ((height(10.0**decade), f"{10.0**decade:g}") for decade in range(low, high + 1)):
        marks += [_grid(level, left, left + panel, label), _line(right, level, WIDTH, level, "grid")]
    for title, values, start, series in (
        ("before", picture.before, left, "fp32"),
        ("after", picture.after, right, "ours"),
    ):
        marks.append(_text(title, start, top - 10, "strong"))
        marks.append(_strokes([height(value) for value in _binned(values)], start, panel, bottom, series))
    return _svg(f"Channel magnitudes before and after at {picture.layer}", bottom + 10, marks)


def operator_bars(rows: Sequence[OperatorRow]) -> str:
    """For each model and shape a bar of its operators, each of the same colour everywhere."""
    totals: dict[tuple[str, str], float] = {}
    most: dict[str, float] = {}
    for row in rows:
        totals[row.shape, row.model] = totals.get((row.shape, row.model), 0.0) + row.us
        most[row.op] = max(most.get(row.op, 0.0), row.us)
    ranked = sorted(most, key=lambda op: -most[op])[:_COLOURS]
    colours = {op: f"op{number}" for number, op in enumerate(ranked)}
    scale = 600 / max((*totals.values(), 1e-9))
    marks: list[str] = []
    place, top, shape = 8.0, 12.0, None
    for op in ranked:
        marks += [_box(place, top - 8, 10, 10, colours[op], op), _text(op, place + 14, top + 1, "note")]
        place += 34 + 6.2 * len(op)
        if place > WIDTH - 190:
            place, top = 8.0, top + 18
    for (label, model), total in totals.items():
        if label != shape:
            shape, top = label, top + 30
            marks.append(_text(shape, 0, top - 8, "strong"))
        own = [row for row in rows if (row.shape, row.model) == (label, model)]
        marks.append(_operator_bar(model, own, top, scale, colours))
        marks.append(_text(figures.milliseconds(total / 1000), 178 + total * scale, top + 15, ""))
        top += 26
    return _svg("Time of each model by operator", top + 4, marks)


def _operator_bar(
    model: str, rows: Sequence[OperatorRow], top: float, scale: float, colours: Mapping[str, str]
) -> str:
    marks, place = [_text(figures.shorten(model, 22), 160, top + 14, "end")], 170.0
    for row in sorted(rows, key=lambda row: list(colours).index(row.op) if row.op in colours else _COLOURS):
        told = f"{row.op}: {figures.milliseconds(row.us / 1000)}, {figures.percent(row.share)}"
        marks.append(_box(place, top + 2, row.us * scale, 17, colours.get(row.op, "rest"), told))
        place += row.us * scale
    return "".join(marks)


def legend(names: Iterable[str]) -> str:
    """A line of coloured dots with their meaning, for the decisions in `layer_errors`."""
    marks, place = [], 8.0
    for name in names:
        marks.append(_dot(place, 10, _series(name), name))
        marks.append(_text(name, place + 10, 14, "note"))
        place += 34 + 7 * len(name)
    return _svg("Legend", 20, marks)


def _latency_bar(row: Timing, top: float, scale: float) -> str:
    start, length = 170.0, max(row.least_ms * scale, 1.0)
    series = "fp32" if row.ratio is None else "ours"
    median, least = figures.milliseconds(row.median_ms), figures.milliseconds(row.least_ms)
    told = f"{row.model}: median {median}, least {least}"
    shape = f'x="{start:g}" y="{top + 2:g}" width="{length:.1f}" height="17" rx="2"'
    reach = start + max(_reach_ms(row) * scale, length)
    dots = (_dot(start + each * scale, top + 10.5, "process", told) for each in row.medians_ms)
    after = least if row.ratio is None else f"{least}  ({figures.ratio(row.ratio)})"
    return "".join(
        (
            _text(figures.shorten(row.model, 22), start - 10, top + 14, "end"),
            f'<rect class="{series}" {shape}><title>{_escape(told)}</title></rect>',
            _line(start + length, top + 10.5, reach, top + 10.5, "whisker"),
            *dots,
            _text(after, reach + 8, top + 15, ""),
        )
    )


def _reach_ms(row: Timing) -> float:
    """How far the line beyond a bar goes."""
    return max((row.median_ms, *row.medians_ms))


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """Whole powers of ten that enclose the positive values, `_DECADES` apart at most, 1 at least."""
    logs = [math.log10(value) for value in values if 0 < value < math.inf]
    high = math.ceil(max(logs, default=0.0))
    low = max(math.floor(min(logs, default=0.0)), high - _DECADES)
    return min(low, high - 1), high


def _binned(values: Sequence[float]) -> list[float]:
    """At most `_BINS` values: the largest of each run of neighbours."""
    count = min(len(values), _BINS)
    edges = [index * len(values) // count for index in range(count + 1)] if count else []
    return [max(values[start:stop]) for start, stop in itertools.pairwise(edges)]


def _strokes(heights: Sequence[float], start: float, width: float, bottom: float, series: str) -> str:
    step = width / max(len(heights), 1)
    path = "".join(
        f"M{start + (i + 0.5) * step:.1f} {bottom:g}V{level:.1f}" for i, level in enumerate(heights)
    )
    return f'<path class="stroke-{series}" stroke-width="{max(step * 0.8, 0.8):.2f}" d="{path}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Round values in equal steps, four to eight of them, that enclose `low` and `high`."""
    span = max(high - low, 1.0)
    step = 10 ** math.floor(math.log10(span))
    step *= next(factor for factor in (0.2, 0.5, 1.0, 2.0) if span / (step * factor) <= 6)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [index * step for index in range(first, last + 1)]


def _series(decision: str) -> str:
    """A colour for a decision: float stands apart, and so do weights of fewer bits."""
    if decision.startswith("float"):
        return "fp32"
    return "other" if "per-token" in decision or "int4" in decision else "ours"


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _box(x: float, y: float, width: float, height: float, kind: str, told: str) -> str:
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}"'
    return f'<rect class="{kind}" {shape}><title>{_escape(told)}</title></rect>'


def _grid(level: float, left: float, right: float, label: str) -> str:
    return _line(left, level, right, level, "grid") + _text(label, left - 6, level + 4, "note end")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, series: str, told: str) -> str:
    return f'<circle class="{series}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{_escape(told)}</title></circle>'


def _text(text: str, x: float, y: float, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{_escape(text)}</text>'


def _svg(title: str, height: float, marks: Iterable[str]) -> str:
    label = _escape(title)
    box = f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}"'
    return f'<div class="wide"><svg {box}>{"".join(marks)}</svg></div>'


def _escape(text: str) -> str:
    return html.escape(figures.printable(text))

"""The sheets of what was decided: layers, plans to choose from, refinements of the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from onnxq.report import figures
from onnxq.report.rows import FrontRow, LayerRow, RefinementRow
from onnxq.report.sheets import Row, Sheet

_NAME_WIDTH = 32


def decisions_sheet(layers: Iterable[LayerRow], target: str = "") -> Sheet:
    """How many layers went which way, and why; `target` is what for."""
    counts = Counter((row.kind, row.decision, row.reason) for row in layers)
    return Sheet(
        f"Decisions for {target}" if target else "Decisions",
        (">Layers", "Kind", "Decision", "Reason"),
        tuple(Row((str(count), *key)) for key, count in counts.most_common()),
    )


def layers_sheet(layers: Iterable[LayerRow]) -> Sheet:
    """One line a layer, in graph order."""
    return Sheet(
        "Layers",
        (
            ">",
            "Layer",
            "Kind",
            ">Size",
            "Decision",
            ">SQNR",
            ">Output, it alone",
            ">Output, its input alone in static 8 bits",
            ">Range",
            ">Channel ratio",
            "Reason",
            "Tried",
        ),
        tuple(
            Row(
                (
                    str(index),
                    row.name,
                    row.kind,
                    f"{row.channels}\u00a0x\u00a0{row.columns}",
                    row.decision.replace(" ", "\u00a0"),
                    figures.decibels(row.sqnr_db),
                    figures.decibels(row.effect_db),
                    figures.decibels(row.input_effect_db),
                    _spans(row),
                    _channel_ratios(row),
                    _why(row),
                    "; ".join(f"{each.option}: {figures.decibels(each.sqnr_db)}" for each in row.tried),
                )
            )
            for index, row in enumerate(layers)
        ),
    )


def refinements_sheet(rows: Iterable[RefinementRow]) -> Sheet:
    """What was tried on the whole planned model, and what came of it on samples held out for that."""
    return Sheet(
        "Refinements",
        ("Tried", ">Before", ">With it", "Kept", "Reason"),
        tuple(
            Row(
                (
                    row.name,
                    figures.decibels(row.before_db),
                    figures.decibels(row.after_db),
                    "yes" if row.kept else "no",
                    row.reason,
                )
            )
            for row in rows
        ),
    )


def front_sheet(front: Sequence[FrontRow]) -> Sheet:
    """The ends of the front of plans, and the plan that was carried out with its neighbours."""
    chosen = next((place for place, row in enumerate(front) if row.chosen), 0)
    shown = {0, chosen - 1, chosen, chosen + 1, len(front) - 1} & set(range(len(front)))
    return Sheet(
        f"Plans, {len(front)} from the cheapest to the most accurate",
        (">", ">Cost", ">SQNR", "", "More than the one before"),
        tuple(
            Row(
                (
                    str(place + 1),
                    f"{front[place].cost / max(front[0].cost, 1e-12):.3f}x",
                    figures.decibels(_decibels(front[place].error, front[0].error)),
                    "this\u00a0one" if front[place].chosen else "",
                    _step(front[place]),
                ),
                "good" if front[place].chosen else "",
            )
            for place in sorted(shown)
        )
        if len(front) > 1
        else (),
        "Cost as expected, against the cheapest plan; SQNR of all linears, their errors added up",
    )


def _step(row: FrontRow) -> str:
    name, _, option = row.step.rpartition(": ")
    return f"{figures.shorten(name, _NAME_WIDTH)}: {option}" if name else row.step or "the cheapest"


def _decibels(error: float, most: float) -> float:
    """Errors are added up along the front, so that of none a rounding error may be left."""
    return -10 * math.log10(error) if error > 1e-12 * most else math.inf


def worst_sheet(layers: Iterable[LayerRow], count: int) -> Sheet:
    """The `count` layers whose own output is furthest off."""
    measured = (row for row in layers if row.sqnr_db is not None)
    worst = sorted(measured, key=lambda row: row.sqnr_db or 0.0)[:count]
    decided = any(row.effect_db is not None for row in worst)
    inputs = any(row.input_effect_db is not None for row in worst)
    return Sheet(
        "Layers with the largest error of their own",
        (
            "Layer",
            "Decision",
            ">SQNR",
            ">Of the model" if decided else ">Input alone",
            ">Channel ratio",
            "Reason",
        ),
        tuple(
            Row(
                (
                    row.name,
                    row.decision,
                    figures.decibels(row.sqnr_db),
                    figures.decibels(row.effect_db if decided else row.input_effect_db),
                    _channel_ratios(row),
                    row.evidence or row.reason,
                )
            )
            for row in worst
        ),
        "Of the model: its output with that layer alone rounded, as decided"
        if decided
        else "Input alone: the model's output with the layer's input alone rounded, in static 8 bits"
        if inputs
        else "",
    )


def _why(row: LayerRow) -> str:
    return f"{row.reason}: {row.evidence}" if row.evidence else row.reason


def _spans(row: LayerRow) -> str:
    """The ranges before and after; each stays in one piece where a line breaks."""
    spans = (span for span in (row.range_before, row.range_after) if span is not None)
    told = (f"{figures.number(span.low)}\u00a0…\u00a0{figures.number(span.high)}" for span in spans)
    return " → ".join(told) or figures.NOTHING


def _channel_ratios(row: LayerRow) -> str:
    ratios = (row.channel_ratio_before, row.channel_ratio_after)
    return " → ".join(figures.number(value) for value in ratios if value is not None) or figures.NOTHING

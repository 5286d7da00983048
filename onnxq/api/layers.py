"""Rows and pictures of layers: what was decided, and what migration did to their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.planning.layer_plan import LayerPlan
from onnxq.planning.layers import Plan
from onnxq.report.measures import Range
from onnxq.report.rows import ChannelPicture, FrontRow, LayerRow, Tried
from onnxq.statistics import Statistics, TensorStatistics

PICTURES = 6


def front_rows(plan: Plan | None) -> tuple[FrontRow, ...]:
    """The plans that there were to choose from."""
    if plan is None:
        return ()
    return tuple(
        FrontRow(point.cost, point.error, plan.step(place), place == plan.place)
        for place, point in enumerate(plan.front)
    )


def layer_rows(
    original: ir.Model,
    exact: ir.Model,
    plans: Sequence[LayerPlan],
    before: Statistics,
    after: Statistics,
    effects: Mapping[str, float],
) -> tuple[LayerRow, ...]:
    """One row a linear, in the order of the graph.

    Args:
        original: The model as it came, whose linears `before` knows by their inputs.
        exact: The model with all exact passes applied.
        plans: What was decided.
        before: Statistics of the original.
        after: Statistics of `exact`.
        effects: SQNR of the model's output with that layer alone rounded, by name, where it was measured.
    """
    inputs, moved = _inputs_of(original), _inputs_of(exact)
    rows = []
    for plan in plans:
        one, two = (
            before.get(inputs.get(plan.name, "")),
            after.get(moved.get(plan.name, plan.activation)),
        )
        rows.append(
            LayerRow(
                name=plan.name,
                kind="linear",
                channels=plan.channels,
                columns=plan.columns,
                decision=_decision(plan),
                reason=plan.reason,
                sqnr_db=plan.sqnr_db,
                range_before=_range(one),
                range_after=_range(two),
                channel_ratio_before=channel_ratio(one),
                channel_ratio_after=channel_ratio(two),
                tried=tuple(Tried(each.option, each.sqnr_db, each.cost) for each in plan.considered),
                effect_db=effects.get(plan.name),
                evidence=plan.evidence,
                input_effect_db=plan.input_effect_db,
            )
        )
    return tuple(rows)


def channel_pictures(
    original: ir.Model, exact: ir.Model, plans: Sequence[LayerPlan], before: Statistics, after: Statistics
) -> tuple[ChannelPicture, ...]:
    """Channel magnitudes of the layers that had the most uneven inputs, each input once."""
    inputs, moved = _inputs_of(original), _inputs_of(exact)
    drawn: dict[str, tuple[float, ChannelPicture]] = {}
    for plan in plans:
        source = inputs.get(plan.name, "")
        one, two = before.get(source), after.get(moved.get(plan.name, plan.activation))
        ratio = channel_ratio(one)
        if ratio is None or one is None or two is None or source in drawn:
            continue
        if one.channel is None or two.channel is None or one.channel.low.shape != two.channel.low.shape:
            continue
        picture = ChannelPicture(
            plan.name, tuple(one.channel.magnitude.tolist()), tuple(two.channel.magnitude.tolist())
        )
        drawn[source] = (ratio, picture)
    worst = sorted(drawn.values(), key=lambda pair: -pair[0])
    return tuple(picture for _, picture in worst[:PICTURES])


def _decision(plan: LayerPlan) -> str:
    """What was chosen, the same for all layers that differ in numbers alone."""
    extras = ["evened out"] if plan.option.scaled else []
    extras += ["outliers in float"] if plan.outliers else []
    return ", ".join([plan.form, *extras])


def channel_ratio(seen: TensorStatistics | None) -> float | None:
    """Largest channel magnitude over the median one; None where channels were not looked at or are zero."""
    if seen is None or seen.channel is None:
        return None
    magnitude = seen.channel.magnitude
    median = float(np.median(magnitude))
    return float(magnitude.max()) / median if median > 0 else None


def _range(seen: TensorStatistics | None) -> Range | None:
    return None if seen is None else Range(float(seen.low), float(seen.high))


def _inputs_of(model: ir.Model) -> Mapping[str, str]:
    """Name of the value that each linear multiplies, by the name that plans have for it."""
    found = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
    return {label_of(linear.node): str(linear.activation.name) for linear in found}

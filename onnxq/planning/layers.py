"""Which form each linear takes: decided by the error that the form makes on real activations.

For every linear a sample of its real input rows is multiplied once in float and once in each form, and the
linear's own output error is read off. The cheapest form that is accurate enough wins:

    int8 static      one scale for the whole tensor, fixed: the fastest
    int8 per-token   one scale for each token, measured while running: for tensors with a few towering tokens
    float            for the rest
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxq.calibration import DataSource, gather_activations
from onnxq.edit import label_of
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.passes.quantize.ranges import RangeMethod, choose_range, params_for
from onnxq.passes.quantize.weights import quantize_weight
from onnxq.statistics import Statistics
from onnxq.targets import Target

Form = Literal["int8 static", "int8 per-token", "float"]

GOOD_ENOUGH_DB = 24.0
"""Own SQNR at which a static linear is not looked at any further."""
WORTH_DB = 4.0
"""What a scale per token has to gain, for it takes five small nodes more."""
QUIET = 1e-2
"""Tokens with less energy than this part of the median one count as if they had that."""
HOPELESS_DB = 8.0
"""Own SQNR below which a linear stays float."""


@dataclass(frozen=True)
class LayerPlan:
    """The form of one linear, and why.

    Attributes:
        name: Name of the product's node, or of its output if it has none.
        activation: Name of the value it multiplies.
        channels: K.
        columns: N.
        form: What was chosen.
        reason: Why, in words.
        sqnr_db: SQNR of its own output in that form, its input being exact; None where it was not measured
            (and infinite for float).
    """

    name: str
    activation: str
    channels: int
    columns: int
    form: Form
    reason: str
    sqnr_db: float | None = None


@dataclass(frozen=True)
class PlanSettings:
    """What bears on the choice.

    Attributes:
        target: The processor.
        method: How static ranges are chosen.
        percentile: For the method of that name.
        margin: Part by which static ranges are widened.
        keep_float: Patterns (``*`` stands for any text) of nodes that stay float.
        allow_per_token: Whether the format has a scale per token.
        rows: Rows of each activation to measure on.
        seed: Which rows.
    """

    target: Target
    method: RangeMethod = "minmax"
    percentile: float = 99.99
    margin: float = 0.0
    keep_float: tuple[str, ...] = ()
    allow_per_token: bool = True
    rows: int = 512
    seed: int = 0


def plan_layers(
    model: ir.Model, source: DataSource, statistics: Statistics, settings: PlanSettings
) -> tuple[LayerPlan, ...]:
    """A form for every linear of `model`, in the order of the graph.

    Args:
        model: The model with all exact passes applied.
        source: Calibration data.
        statistics: Of every linear's input, with histograms unless the method is "minmax".
        settings: See there.
    """
    linears = [linear for node in nodes(model) if isinstance(linear := find_linear(node), Linear)]
    inner = {node for function in model.functions.values() for node in function.all_nodes()}
    refused = {
        label_of(linear.node): "calibration does not look into functions"
        if linear.node in inner
        else _refusal(linear, statistics, settings)
        for linear in linears
    }
    open_ones = [linear for linear in linears if not refused[label_of(linear.node)]]
    plans: dict[str, LayerPlan] = {}
    for group in _batches(open_ones):
        names = {str(linear.activation.name) for linear in group}
        rows = gather_activations(model, source, names, max_tokens=settings.rows, seed=settings.seed)
        for linear in group:
            plan = _choose(linear, rows[str(linear.activation.name)], statistics, settings)
            plans[plan.name] = plan
    return tuple(
        plans.get(label_of(linear.node)) or _plan(linear, "float", refused[label_of(linear.node)])
        for linear in linears
    )


def relax(plans: Iterable[LayerPlan], count: int) -> tuple[LayerPlan, ...]:
    """The plan with `count` more linears in float: those with the lowest own SQNR."""
    given = tuple(plans)
    open_ones = [plan for plan in given if plan.form != "float" and plan.sqnr_db is not None]
    worst = {plan.name for plan in sorted(open_ones, key=lambda plan: plan.sqnr_db or 0.0)[:count]}
    reason = "among the largest errors, and the fidelity asked for was missed with it"
    return tuple(
        replace(plan, form="float", reason=reason, sqnr_db=float("inf")) if plan.name in worst else plan
        for plan in given
    )


def names_of(plans: Iterable[LayerPlan], form: Form) -> tuple[str, ...]:
    """Names of the linears that take `form`."""
    return tuple(plan.name for plan in plans if plan.form == form)


def _refusal(linear: Linear, statistics: Statistics, settings: PlanSettings) -> str:
    """Why a linear cannot be integer at all; "" if it can."""
    name = label_of(linear.node)
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.keep_float):
        return "told to stay float"
    if linear.dtype.name != "float32":
        return f"it computes in {linear.dtype.name}"
    if not settings.target.pays(linear.channels, linear.columns):
        return f"{linear.channels} x {linear.columns} is too small to pay"
    activation = str(linear.activation.name)
    if activation not in statistics:
        return statistics.skipped.get(activation, "calibration did not see its input")
    return ""


def _choose(linear: Linear, rows: np.ndarray, statistics: Statistics, settings: PlanSettings) -> LayerPlan:
    weight = linear.weight.astype(np.float32)
    rounded = quantize_weight(weight, settings.target.weight_bits).values
    exact = rows @ weight
    seen = statistics[str(linear.activation.name)]
    params = params_for(*choose_range(seen, settings.method, settings.percentile, settings.margin))
    static = _sqnr(exact, params.apply(rows) @ rounded)
    if static >= GOOD_ENOUGH_DB:
        return _plan(linear, "int8 static", "a fixed range is accurate enough", static)
    per_token = _sqnr(exact, _by_token(rows) @ rounded) if settings.allow_per_token else -np.inf
    if per_token >= static + WORTH_DB and per_token >= HOPELESS_DB:
        return _plan(linear, "int8 per-token", "a few tokens tower over the others", per_token)
    if static >= HOPELESS_DB:
        return _plan(linear, "int8 static", "no other form is better by enough", static)
    return _plan(linear, "float", "8 bits lose too much of it", float("inf"))


def _plan(linear: Linear, form: Form, reason: str, sqnr_db: float | None = None) -> LayerPlan:
    return LayerPlan(
        label_of(linear.node),
        str(linear.activation.name),
        linear.channels,
        linear.columns,
        form,
        reason,
        sqnr_db,
    )


def _by_token(rows: np.ndarray) -> np.ndarray:
    """`rows` rounded to 8 bits with a symmetric scale for each."""
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 127, 1e-30)
    rounded: np.ndarray = np.rint(rows / scale) * scale
    return rounded


def _sqnr(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Signal to noise in dB, each token weighing the same.

    A few massive tokens hold most of the energy; weighed by energy, all the others could be lost unseen.
    """
    noise = ((exact - rounded) ** 2).sum(axis=1, dtype=np.float64)
    signal = (exact**2).sum(axis=1, dtype=np.float64)
    floor = max(QUIET * float(np.median(signal)), 1e-300)
    return float(-10 * np.log10(max(float((noise / np.maximum(signal, floor)).mean()), 1e-30)))


def _batches(linears: list[Linear], size: int = 64) -> Iterable[list[Linear]]:
    """Linears in groups, so that only some activations are in memory at once."""
    return (linears[start : start + size] for start in range(0, len(linears), size))


def as_mapping(plans: Iterable[LayerPlan]) -> Mapping[str, LayerPlan]:
    """Plans by name of the linear."""
    return {plan.name: plan for plan in plans}

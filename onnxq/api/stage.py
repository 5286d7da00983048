"""A model with its data, opened once for whatever is done with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import onnx_ir as ir

from onnxq.api.records import usable_threads
from onnxq.calibration import DataSource, Split, collect, open_data, split, split_unlike
from onnxq.interop import Acceptable, as_model
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.walk import nodes
from onnxq.pipeline import Step
from onnxq.recipe import DataSettings
from onnxq.statistics import Statistic, Statistics

Progress = Callable[[str, int, int], None]
"""Told of progress: the stage in words, steps done, steps in all (0 if nobody knows)."""


def silent(stage: str, done: int, total: int) -> None:
    """The progress of callers who do not ask."""


@dataclass
class Remembered:
    """Statistics of the last state of a model that was looked at: passes and reports ask for it again.

    Second moments and examples are let go of, since they are larger than many a model.
    """

    model: ir.Model | None = None
    asked: Mapping[Statistic, frozenset[str]] = field(default_factory=dict)
    found: Statistics = field(default_factory=Statistics)

    def find(self, model: ir.Model, asked: Mapping[Statistic, Collection[str]]) -> Statistics | None:
        """What is known of `model`, if that is all of what is asked."""
        if model is not self.model:
            return None
        known = all(set(names) <= self.asked.get(kind, frozenset()) for kind, names in asked.items())
        return self.found if known else None

    def forget(self) -> None:
        """Remember nothing, before there is more to hold."""
        self.model, self.asked, self.found = None, {}, Statistics()

    def keep(self, model: ir.Model, asked: Mapping[Statistic, Collection[str]], found: Statistics) -> None:
        """Remember `found` in place of what was remembered before."""
        self.model = model
        self.asked = {kind: frozenset(names) for kind, names in asked.items() if kind not in _LARGE}
        self.found = found.without(_LARGE)


_LARGE = frozenset({Statistic.SECOND_MOMENTS, Statistic.EXAMPLES})


@dataclass
class Stage:
    """A model, the data it is calibrated with and the data it is judged on.

    Attributes:
        given: What the caller named.
        model: The model as it came.
        calibration: Data that statistics come from.
        held_out: Data that figures come from.
        separate: False if the data could not be divided, so that both are the same.
        threads: Threads of the runtime.
        progress: Told of progress.
        kinds: Kinds of statistics gathered of every linear's input besides what passes ask for.
        remembered: What was gathered last, less what is large, and of which model.
    """

    given: Any
    model: ir.Model
    calibration: DataSource
    held_out: DataSource
    separate: bool
    threads: int
    progress: Progress = silent
    kinds: frozenset[Statistic] = field(default_factory=frozenset)
    remembered: Remembered = field(default_factory=Remembered, repr=False)

    @classmethod
    def open(
        cls,
        thing: Acceptable,
        data: Any,
        settings: DataSettings,
        *,
        threads: int,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Stage:
        """Open a model and its data, and hold some of the data out."""
        told = progress or silent
        told("reading the model and the data", 0, 0)
        model = as_model(thing)
        parts = split(open_data(data, model, settings.options(seed)))
        kinds = frozenset({Statistic.CHANNEL_EXTREMES})
        return cls(thing, model, parts.calibration, parts.held_out, parts.separate, threads, told, kinds)

    @classmethod
    def undivided(
        cls,
        thing: Acceptable,
        data: Any,
        settings: DataSettings | None,
        *,
        threads: int | None,
        progress: Progress | None = None,
    ) -> Stage:
        """The same with nothing held out: all is calibration data. None stands for what is usual."""
        count = usable_threads(threads)
        stage = cls.open(thing, data, settings or DataSettings(), threads=count, progress=progress)
        everything = stage.calibration.select(sorted({*stage.calibration.indices, *stage.held_out.indices}))
        return replace(stage, calibration=everything, held_out=everything, separate=False)

    @cached_property
    def trial(self) -> Split:
        """The calibration data divided once more, for choices: what is set apart is unlike the rest."""
        norms = [found for node in nodes(self.model) if isinstance(found := find_norm(node), Norm)]
        if not norms:
            return split(self.calibration)
        return split_unlike(self.model, self.calibration, str(norms[-1].output.name), threads=self.threads)

    def few(self, count: int) -> DataSource:
        """So many samples, or fewer, of what `trial` sets apart."""
        apart = self.trial.held_out
        return apart.select(apart.indices[:count])

    def watching(self, *kinds: Statistic) -> Stage:
        """The same with more kinds of statistics gathered of every linear's input."""
        return replace(self, kinds=self.kinds | frozenset(kinds))

    def gather_exactly(self, model: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
        """Statistics of what is wanted and nothing else."""
        return collect(model, self.calibration, wanted, threads=self.threads, progress=self._collecting)

    def gather(self, model: ir.Model, wanted: Mapping[Statistic, Collection[str]]) -> Statistics:
        """Statistics for the pipeline: of everything that passes may ask of this state, in one go.

        A state of the model is thus run over the data once, however many passes look at it.
        """
        asked: dict[Statistic, set[str]] = {kind: set(names) for kind, names in wanted.items()}
        watched = watched_values(model)
        for kind in self.kinds:
            asked.setdefault(kind, set()).update(watched)
        known = self.remembered.find(model, asked)
        if known is not None:
            return known
        self.remembered.forget()
        found = collect(model, self.calibration, asked, threads=self.threads, progress=self._collecting)
        self.remembered.keep(model, asked, found)
        return found

    def step(self, step: Step) -> None:
        """Pass the pipeline's progress on."""
        self.progress(*stage_of(step))

    def _collecting(self, done: int, total: int) -> None:
        self.progress("calibrating", done, total)


def stage_of(step: Step) -> tuple[str, int, int]:
    """A step of the pipeline as progress: the stage, behind a colon what of it, steps done, steps in all."""
    if not step.name:
        return "verifying", 0, 0
    stage = "calibrating" if step.action == "statistics" else "rewriting"
    return f"{stage}: {step.name}", step.number - 1, step.total


def watched_values(model: ir.Model) -> set[str]:
    """Names of the inputs of all linears and the outputs of all norms."""
    names: set[str] = set()
    for node in nodes(model):
        linear, norm = find_linear(node), find_norm(node)
        if isinstance(linear, Linear):
            names.add(str(linear.activation.name))
        if isinstance(norm, Norm):
            names.add(str(norm.output.name))
    return names

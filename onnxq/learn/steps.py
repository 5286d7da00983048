"""Token-wise clipping, fine stage: all activation ranges of a network learned together on its own output.

Every quantized activation's step size and zero point is a parameter; the loss is the squared error of the
model's outputs against those of the float model, gradients running through the whole network. What is
learned is the part of its start by which a step grows, and the part of all codes by which a zero point moves,
so that one learning rate fits tensors of any size.

Source: Outlier Suppression (arXiv 2209.13325, sec. 4.2); steps and zero points as in LSQ+ (arXiv 2004.09576).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch

from onnxq.errors import CalibrationError
from onnxq.learn.batches import Batch, Feeds, divided_batches, squared_error, squared_size
from onnxq.learn.fake_quant import Step
from onnxq.learn.imitation import Ranges, linears_of, reads_of, steps_for, weights_of
from onnxq.learn.operators import Tensor
from onnxq.learn.program import Changes, Program

Report = Callable[[int, int], None]
"""Told of progress: steps done, and steps in all."""


@dataclass(frozen=True)
class StepSettings:
    """How ranges are learned.

    Attributes:
        bits: Of the activations.
        weight_bits: Weights that are not given are rounded to the nearest of so many bits; 0: left float.
        epochs: Times that all samples are seen.
        rate: Learning rate of Adam, as a part of a step's start; falls to zero along a cosine.
        batch: Samples in a batch.
        outputs: Names of the values whose error counts; None for the model's outputs.
        seed: Of the order of the batches.
    """

    bits: int = 8
    weight_bits: int = 0
    epochs: int = 3
    rate: float = 2e-2
    batch: int = 4
    outputs: tuple[str, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class LearnedRanges:
    """What came of learning.

    Attributes:
        ranges: By name of the activation: learned ones, or those of the start where they were better.
        before: Error on the held-out samples with the ranges of the start, as a part of the outputs' square.
        after: The same with `ranges`; never greater.
        kept: Whether the learned ranges were better on the held-out samples.
        losses: Mean error on the samples learned from, epoch by epoch.
    """

    ranges: dict[str, tuple[float, float]]
    before: float
    after: float
    kept: bool
    losses: tuple[float, ...] = field(default=())


def learn_steps(
    model: ir.Model,
    ranges: Ranges,
    samples: Iterable[Feeds],
    held_out: Iterable[Feeds],
    settings: StepSettings | None = None,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    report: Report | None = None,
) -> LearnedRanges:
    """Learn activation ranges.

    Args:
        model: The float model, as it will be quantized.
        ranges: Where to start, by name; every linear of the main graph that reads one of these is taken to
            be quantized.
        samples: Feeds to learn from.
        held_out: Feeds that decide, after each epoch, which ranges are the best so far.
        settings: How to learn.
        weights: Weights [K, N] that linears multiply with instead of their own, by linear.
        report: Told of progress.

    Raises:
        UnsupportedModel: An operator has no gradient here.
        CalibrationError: There are no samples, or the error is not finite.
    """
    settings = settings or StepSettings()
    learner = _Learner(model, ranges, settings, weights or {})
    return learner.learn(*divided_batches(model, samples, held_out, settings.batch), report)


class _Learner:
    """The network with its steps, and the parameters that change them."""

    def __init__(
        self, model: ir.Model, ranges: Ranges, settings: StepSettings, weights: Mapping[str, np.ndarray]
    ) -> None:
        self.settings = settings
        self.program = Program(model, settings.outputs)
        self.linears = linears_of(model, ranges)
        self.start = steps_for(self.linears, ranges, settings.bits)
        self.given = dict(ranges)
        self.growth = torch.zeros(len(self.start), requires_grad=True)
        self.moves = torch.zeros(len(self.start), requires_grad=True)
        self.weights = weights_of(self.linears, weights, settings.weight_bits)

    def learn(self, learning: list[Batch], judging: list[Batch], report: Report | None) -> LearnedRanges:
        with torch.no_grad():
            wanted = [self.program(batch.feeds) for batch in learning]
            goals = [self.program(batch.feeds) for batch in judging]
        total = self.settings.epochs * len(learning)
        adam = torch.optim.Adam([self.growth, self.moves], lr=self.settings.rate)
        cosine = torch.optim.lr_scheduler.LambdaLR(
            adam, lambda at: 0.5 * (1 + math.cos(math.pi * at / total))
        )
        shuffled = np.random.default_rng(self.settings.seed)
        before = best = self._judge(judging, goals)
        ranges, losses = dict(self.given), []
        for epoch in range(self.settings.epochs):
            seen = []
            for place, index in enumerate(shuffled.permutation(len(learning))):
                adam.zero_grad()
                loss = self._error(learning[index], wanted[index])
                loss.backward()
                adam.step()
                cosine.step()
                seen.append(float(loss.detach()))
                if report is not None:
                    report(epoch * len(learning) + place + 1, total)
            losses.append(float(np.mean(seen)))
            error = self._judge(judging, goals)
            if error < best:
                best, ranges = error, {**self.given, **self._ranges()}
        return LearnedRanges(ranges, before, best, best < before, tuple(losses))

    def _steps(self) -> dict[str, Step]:
        """The steps with what is learned applied."""
        return {
            name: Step(
                step.scale * torch.exp(self.growth[at]), step.zero + step.top * self.moves[at], step.bits
            )
            for at, (name, step) in enumerate(self.start.items())
        }

    def _ranges(self) -> dict[str, tuple[float, float]]:
        with torch.no_grad():
            return {name: step.range for name, step in self._steps().items()}

    def _error(self, batch: Batch, wanted: Mapping[str, Tensor]) -> Tensor:
        """Squared error of the outputs on one batch, as a part of their square."""
        changes = Changes(reads={**reads_of(self.linears, self._steps()), **self.weights})
        got = self.program(batch.feeds, changes)
        parts = [
            squared_error(got[name], wanted[name], batch.mask) / squared_size(wanted[name], batch.mask)
            for name in wanted
        ]
        return torch.stack(parts).mean()

    def _judge(self, judging: list[Batch], goals: list[dict[str, Tensor]]) -> float:
        with torch.no_grad():
            errors = [float(self._error(batch, goal)) for batch, goal in zip(judging, goals, strict=True)]
        error = float(np.mean(errors))
        if not math.isfinite(error):
            raise CalibrationError(
                "the quantized model's error is not finite on the held-out samples",
                hint="look for samples unlike the rest",
                slug="non-finite-activation",
            )
        return error

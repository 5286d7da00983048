"""Rounding weights up or down as it serves a whole block, with quantization dropped at random while learning.

    codes = clamp(floor(W / s) + h(V), -top, top)        h(V) = clamp(1.2 sigmoid(V) - 0.1, 0, 1)

V starts where h gives back the weight itself; a regularizer drives h to 0 or 1. The steps of the activations
learn along. Each element of the block's input, and of each activation inside, is quantized with probability
`chance` and float otherwise: weights that are flat under such noise carry over to other data. Blocks are done
in order, each behind what was already quantized, against what the float model computes.

The error counts as a part of that of nearest rounding, and the regularizer by its mean over the weights, so
that one `pull` fits blocks of any size; the original's constants are for images and 20,000 steps a block.

Source: QDrop (arXiv 2203.05740); rounding as in AdaRound (arXiv 2004.10568).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from onnxq.ir.linear import Linear
from onnxq.learn.batches import Feeds, divided_batches
from onnxq.learn.blocks import find_blocks
from onnxq.learn.fake_quant import Step, spread, weight_scale
from onnxq.learn.imitation import Ranges, constantly, linears_of, reads_of, steps_for, stored
from onnxq.learn.operators import Tensor, tensor_of
from onnxq.learn.program import Changes, Hook
from onnxq.learn.stream import BlockResult, Part, Report, Stream, parts_in_order

_STRETCH = 0.1
_SHARPEST, _BLUNTEST = 2.0, 20.0


@dataclass(frozen=True)
class ReconstructSettings:
    """How rounding is learned.

    Attributes:
        bits: Of the activations.
        weight_bits: Of the weights.
        group: Rows of a weight that share a scale; 0 for all of a column.
        steps: Steps of the optimizer for each block.
        rate: Learning rate of the rounding.
        scale_rate: Learning rate of the activations' steps, as a part of their start; falls to zero.
        pull: Weight of the regularizer.
        warmup: Part of the steps before the regularizer acts.
        chance: Probability with which an element is quantized while learning.
        batch: Samples in a batch.
        seed: Of the order of the batches and of what is dropped.
    """

    bits: int = 8
    weight_bits: int = 8
    group: int = 0
    steps: int = 400
    rate: float = 1e-2
    scale_rate: float = 1e-3
    pull: float = 1.0
    warmup: float = 0.2
    chance: float = 0.5
    batch: int = 4
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Codes:
    """A rounded weight.

    Attributes:
        codes: int8 [K, N].
        scale: float32 [1, N], or [groups, N].
    """

    codes: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Reconstructed:
    """What came of learning.

    Attributes:
        codes: By linear, of the blocks that were kept; to be written down as they are, not rounded again.
        ranges: Ranges of the activations, by name: learned ones where the block was kept.
        blocks: What it did, for each block.
    """

    codes: dict[str, Codes]
    ranges: dict[str, tuple[float, float]]
    blocks: tuple[BlockResult, ...]


def learn_rounding(
    model: ir.Model,
    ranges: Ranges,
    samples: Iterable[Feeds],
    held_out: Iterable[Feeds],
    settings: ReconstructSettings | None = None,
    *,
    report: Report | None = None,
) -> Reconstructed:
    """Learn how the weights inside the blocks of a transformer are rounded.

    Args:
        model: The float model, as it will be quantized.
        ranges: Ranges of the activations, by name; every linear of the main graph that reads one of these is
            taken to be quantized.
        samples: Feeds to learn from.
        held_out: Feeds that decide whether a block is kept.
        settings: How to learn.
        report: Told of progress.

    Raises:
        UnsupportedModel: An operator has no gradient here.
        CalibrationError: There are no samples.
    """
    settings = settings or ReconstructSettings()
    linears = linears_of(model, ranges)
    blocks = find_blocks(model, linears)
    batches = divided_batches(model, samples, held_out, settings.batch)
    codes: dict[str, Codes] = {}
    found: dict[str, tuple[float, float]] = dict(ranges)
    results: list[BlockResult] = []
    for number, (part, learning, judging) in enumerate(parts_in_order(model, blocks, batches, report)):
        inside = {label: linears[label] for label in part.block.linears}
        rounding = _Rounding(inside, found, settings, number)
        results.append(rounding.learn(part, learning, judging))
        if rounding.kept:
            codes.update(rounding.codes())
            found.update(rounding.ranges())
    return Reconstructed(codes, found, tuple(results))


class _Weight:
    """A weight whose rounding is learned."""

    def __init__(self, linear: Linear, settings: ReconstructSettings) -> None:
        self.linear, self.top = linear, 2 ** (settings.weight_bits - 1) - 1
        weight = tensor_of(np.asarray(linear.weight, np.float32))
        self.scale = weight_scale(weight, settings.weight_bits, settings.group)
        self.steps = spread(self.scale, len(weight), settings.group)
        exact = weight.double() / self.steps.double()
        self.nearest = exact.round().clamp(-self.top, self.top).float()
        self.floor = exact.floor().float()
        part = (exact - exact.floor()).float()
        start = -torch.log((1 + 2 * _STRETCH) / (part + _STRETCH) - 1)
        self.choice = start.requires_grad_()

    def up(self) -> Tensor:
        """How far each weight is rounded up, 0 to 1."""
        return ((1 + 2 * _STRETCH) * torch.sigmoid(self.choice) - _STRETCH).clamp(0, 1)

    def soft(self) -> Tensor:
        """The weight [K, N] while learning."""
        return (self.floor + self.up()).clamp(-self.top, self.top) * self.steps

    def hard(self) -> Tensor:
        """The codes [K, N], decided."""
        return (self.floor + (self.choice.detach() >= 0)).clamp(-self.top, self.top)


class _Rounding:
    """The weights and the steps of one block."""

    def __init__(
        self, linears: Mapping[str, Linear], ranges: Ranges, settings: ReconstructSettings, number: int
    ) -> None:
        self.linears, self.settings = linears, settings
        self.start = steps_for(linears, ranges, settings.bits)
        self.growth = torch.zeros(len(self.start), requires_grad=True)
        self.weights = {label: _Weight(linear, settings) for label, linear in linears.items()}
        self.kept = False
        self.random = torch.Generator().manual_seed(settings.seed + number)

    def learn(self, part: Part, learning: Stream, judging: Stream) -> BlockResult:
        """Learn, decide on the held-out samples, and move both streams behind the block."""
        for stream in (learning, judging):
            stream.enter(part)
        nearest = self._decided(learned=False)
        before = judging.error(part, nearest)
        self._descend(part, learning, learning.error(part, nearest))
        decided = self._decided(learned=True)
        after = judging.error(part, decided)
        self.kept = after < before
        for stream in (learning, judging):
            stream.leave(part, decided if self.kept else nearest)
        return BlockResult(part.block.start, part.block.end, before, min(before, after), self.kept)

    def codes(self) -> dict[str, Codes]:
        """The decided codes."""
        return {
            label: Codes(weight.hard().to(torch.int8).numpy(), weight.scale.numpy())
            for label, weight in self.weights.items()
        }

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The learned ranges."""
        return {name: step.range for name, step in self._steps().items()}

    def _descend(self, part: Part, stream: Stream, unit: float) -> None:
        settings = self.settings
        groups = [
            {"params": [weight.choice for weight in self.weights.values()], "lr": settings.rate},
            {"params": [self.growth], "lr": settings.scale_rate},
        ]
        adam = torch.optim.Adam(groups)
        order = np.random.default_rng(settings.seed)
        for at in range(settings.steps):
            groups = adam.param_groups
            groups[1]["lr"] = settings.scale_rate * 0.5 * (1 + np.cos(np.pi * at / settings.steps))
            index = int(order.integers(len(stream.batches)))
            mixed = self._mixed(stream.quantized[index], stream.exact[index])
            loss = part.loss(stream.batches[index], mixed, stream.wanted[index], self._learning())
            adam.zero_grad()
            (loss / max(unit, 1e-12) + settings.pull * self._indecision(at)).backward()
            adam.step()

    def _indecision(self, at: int) -> Tensor:
        """Mean distance of the roundings from a decision; the exponent sharpens as time goes on."""
        begun = self.settings.steps * self.settings.warmup
        if at < begun:
            return torch.zeros(())
        share = (at - begun) / max(self.settings.steps - begun, 1)
        power = _BLUNTEST + (_SHARPEST - _BLUNTEST) * share
        weights = self.weights.values()
        total = torch.stack([(1 - (2 * weight.up() - 1).abs().pow(power)).sum() for weight in weights]).sum()
        return total / sum(weight.floor.numel() for weight in weights)

    def _learning(self) -> Changes:
        steps: dict[str, Hook] = {name: self._dropping(step) for name, step in self._steps().items()}
        soft = {
            (label, 1): constantly(stored(weight.linear, weight.soft()))
            for label, weight in self.weights.items()
        }
        return Changes(reads={**reads_of(self.linears, steps), **soft})

    def _decided(self, *, learned: bool) -> Changes:
        steps = self._steps() if learned else self.start
        hard = {
            (label, 1): constantly(
                stored(weight.linear, (weight.hard() if learned else weight.nearest) * weight.steps)
            )
            for label, weight in self.weights.items()
        }
        return Changes(reads={**reads_of(self.linears, steps), **hard})

    def _dropping(self, step: Step) -> Hook:
        return lambda x: self._mixed(step(x), x)

    def _mixed(self, quantized: Tensor, exact: Tensor) -> Tensor:
        """Each element quantized by chance, else exact."""
        chosen = torch.rand(exact.shape, generator=self.random) < self.settings.chance
        return torch.where(chosen, quantized, exact)

    def _steps(self) -> dict[str, Step]:
        return {
            name: Step(step.scale * torch.exp(self.growth[at]), step.zero, step.bits)
            for at, (name, step) in enumerate(self.start.items())
        }

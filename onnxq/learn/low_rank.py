"""W  =>  W + A B, low in rank, so that what is rounded afterwards does less harm

For each linear a correction of rank r is learned on the output of several blocks together, behind a prefix
that is quantized and corrected already, against what the float model computes. It is merged into the weight
before rounding and costs nothing at run time. Rounding is inside the loop: the weight that is learned is the
weight that will be rounded.

Source: QLLM (arXiv 2310.08041, sec. 3.3, efficient error correction), which learns the correction beside the
rounded weight and rounds again after merging; `LowRankSettings.through_rounding` says which of the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from onnxq.ir.linear import Linear
from onnxq.learn.batches import Feeds, divided_batches
from onnxq.learn.blocks import find_blocks, join_blocks
from onnxq.learn.fake_quant import round_weight, weight_scale
from onnxq.learn.imitation import Ranges, constantly, linears_of, reads_of, steps_for, stored
from onnxq.learn.operators import Tensor, tensor_of
from onnxq.learn.program import Changes, Hook, Place
from onnxq.learn.stream import BlockResult, Part, Report, Stream, parts_in_order


@dataclass(frozen=True)
class LowRankSettings:
    """How corrections are learned.

    Attributes:
        rank: Of each correction.
        bits: Of the activations.
        weight_bits: Of the weights.
        group: Rows of a weight that share a scale; 0 for all of a column.
        blocks: Blocks that are learned together.
        epochs: Times that all samples are seen.
        rate: Learning rate of Adam; falls to zero along a line.
        batch: Samples in a batch.
        through_rounding: Whether the corrected weight is rounded while learning, or the correction is added
            to the rounded weight.
        seed: Of the start of the corrections and the order of the batches.
    """

    rank: int = 4
    bits: int = 8
    weight_bits: int = 8
    group: int = 0
    blocks: int = 4
    epochs: int = 10
    rate: float = 5e-4
    batch: int = 4
    through_rounding: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Corrected:
    """What came of learning.

    Attributes:
        weights: Float weights [K, N] to round instead of the model's own, by linear; only those kept.
        blocks: What it did, for each group of blocks.
    """

    weights: dict[str, np.ndarray]
    blocks: tuple[BlockResult, ...]


def learn_low_rank(
    model: ir.Model,
    ranges: Ranges,
    samples: Iterable[Feeds],
    held_out: Iterable[Feeds],
    settings: LowRankSettings | None = None,
    *,
    report: Report | None = None,
) -> Corrected:
    """Learn low-rank corrections of the weights inside the blocks of a transformer.

    Args:
        model: The float model, as it will be quantized.
        ranges: Ranges of the activations, by name; every linear of the main graph that reads one of these is
            taken to be quantized.
        samples: Feeds to learn from.
        held_out: Feeds that decide whether the correction of a group of blocks is kept.
        settings: How to learn.
        report: Told of progress.

    Raises:
        UnsupportedModel: An operator has no gradient here.
        CalibrationError: There are no samples.
    """
    settings = settings or LowRankSettings()
    linears = linears_of(model, ranges)
    groups = join_blocks(find_blocks(model, linears), settings.blocks)
    batches = divided_batches(model, samples, held_out, settings.batch)
    weights: dict[str, np.ndarray] = {}
    results: list[BlockResult] = []
    reads = reads_of(linears, steps_for(linears, ranges, settings.bits))
    for number, (part, learning, judging) in enumerate(parts_in_order(model, groups, batches, report)):
        inside = {label: linears[label] for label in part.block.linears}
        correction = _Correction(inside, reads, settings, seed=settings.seed + number)
        results.append(correction.learn(part, learning, judging))
        weights.update(correction.weights())
    return Corrected(weights, tuple(results))


class _Correction:
    """The corrections of the linears of one group of blocks."""

    def __init__(
        self,
        linears: Mapping[str, Linear],
        reads: Mapping[Place, Hook],
        settings: LowRankSettings,
        seed: int,
    ) -> None:
        self.linears, self.reads, self.settings, self.seed = linears, reads, settings, seed
        self.own = {
            label: tensor_of(np.asarray(linear.weight, np.float32)) for label, linear in linears.items()
        }
        generator = torch.Generator().manual_seed(seed)
        self.narrow, self.wide = {}, {}
        for label, weight in self.own.items():
            rows, columns = weight.shape
            start = (torch.rand(rows, settings.rank, generator=generator) * 2 - 1) / math.sqrt(rows)
            self.narrow[label] = start.requires_grad_()
            self.wide[label] = torch.zeros(settings.rank, columns, requires_grad=True)
        self.kept = False

    def learn(self, part: Part, learning: Stream, judging: Stream) -> BlockResult:
        """Learn, decide on the held-out samples, and move both streams behind the group."""
        for stream in (learning, judging):
            stream.enter(part)
        before = judging.error(part, self._changes(merged=True))  # the corrections start at zero
        self._descend(part, learning)
        after = judging.error(part, self._changes(merged=True))
        self.kept = after < before
        with torch.no_grad():
            changes = self._changes(merged=True)
        for stream in (learning, judging):
            stream.leave(part, changes)
        return BlockResult(part.block.start, part.block.end, before, min(before, after), self.kept)

    def weights(self) -> dict[str, np.ndarray]:
        """The corrected weights [K, N], if they were kept."""
        if not self.kept:
            return {}
        with torch.no_grad():
            return {label: self._corrected(label).numpy() for label in self.own}

    def _descend(self, part: Part, stream: Stream) -> None:
        settings, count = self.settings, len(stream.batches)
        adam = torch.optim.AdamW(
            [*self.narrow.values(), *self.wide.values()], lr=settings.rate, weight_decay=0.0
        )
        total = settings.epochs * count
        decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda at: 1 - at / total)
        shuffled = np.random.default_rng(self.seed)
        self.kept = True  # while learning, the corrections count
        for _ in range(settings.epochs):
            for at in shuffled.permutation(count):
                adam.zero_grad()
                given = (stream.batches[at], stream.quantized[at], stream.wanted[at])
                part.loss(*given, self._changes(merged=settings.through_rounding)).backward()
                adam.step()
                decay.step()

    def _changes(self, *, merged: bool) -> Changes:
        hooks = {}
        for label, linear in self.linears.items():
            if merged:
                weight = self._rounded(self._corrected(label))
            else:
                weight = self._rounded(self.own[label]) + self._low_rank(label)
            hooks[label, 1] = constantly(stored(linear, weight))
        return Changes(reads={**self.reads, **hooks})

    def _corrected(self, label: str) -> Tensor:
        return self.own[label] + self._low_rank(label) if self.kept else self.own[label]

    def _low_rank(self, label: str) -> Tensor:
        return self.narrow[label] @ self.wide[label] / self.settings.rank

    def _rounded(self, weight: Tensor) -> Tensor:
        bits, group = self.settings.weight_bits, self.settings.group
        return round_weight(weight, weight_scale(weight, bits, group), bits, group)

"""What enters a block, batch by batch: in the float model, and behind a prefix that is quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from onnxq.learn.batches import Batch, squared_error, squared_size
from onnxq.learn.blocks import Block
from onnxq.learn.operators import Tensor
from onnxq.learn.program import Changes, Program

Report = Callable[[int, int], None]
"""Told of progress: blocks, or groups of them, done, and how many there are."""


@dataclass(frozen=True)
class BlockResult:
    """What learning did for a block, or a group of blocks.

    Attributes:
        start: Name of the value that enters.
        end: Name of the value that leaves.
        before: Held-out error as a part of the output's square, weights rounded to nearest.
        after: The same with what is returned; never greater.
        kept: Whether what was learned is better on the held-out samples, and therefore returned.
    """

    start: str
    end: str
    before: float
    after: float
    kept: bool


@dataclass(eq=False)
class Stream:
    """The value of the residual stream between two blocks, for each batch.

    Attributes:
        batches: The samples.
        exact: The value in the float model, by batch.
        quantized: The value behind the quantized prefix, by batch.
        wanted: What the float model makes of `exact` in the block in hand, by batch.
    """

    batches: Sequence[Batch]
    exact: list[Tensor]
    quantized: list[Tensor]
    wanted: list[Tensor]

    @classmethod
    def at(cls, model: ir.Model, start: str, batches: Sequence[Batch]) -> Stream:
        """The stream at the value `start`, nothing before it quantized."""
        program = Program(model, [start])
        with torch.no_grad():
            values = [program(batch.feeds)[start] for batch in batches]
        return cls(batches, values, list(values), [])

    def enter(self, part: Part) -> None:
        """Find what the float model makes of the block."""
        with torch.no_grad():
            self.wanted = [
                part.run(batch, value, Changes())
                for batch, value in zip(self.batches, self.exact, strict=True)
            ]

    def leave(self, part: Part, changes: Changes) -> None:
        """Go behind the block, which from now on belongs to the quantized prefix."""
        with torch.no_grad():
            self.quantized = [
                part.run(batch, value, changes)
                for batch, value in zip(self.batches, self.quantized, strict=True)
            ]
        self.exact = self.wanted

    def error(self, part: Part, changes: Changes) -> float:
        """Error of the block behind the quantized prefix, as a part of the square of what is wanted."""
        with torch.no_grad():
            triples = zip(self.batches, self.quantized, self.wanted, strict=True)
            return float(np.mean([float(part.loss(*triple, changes)) for triple in triples]))


class Part:
    """The program of one block.

    Args:
        model: The float model.
        block: Which part of it.
    """

    def __init__(self, model: ir.Model, block: Block) -> None:
        self.block = block
        self._program = Program(model, [block.end], given=[block.start])

    def run(self, batch: Batch, value: Tensor, changes: Changes) -> Tensor:
        """What the block makes of `value`."""
        return self._program({**batch.feeds, self.block.start: value}, changes)[self.block.end]

    def loss(self, batch: Batch, value: Tensor, wanted: Tensor, changes: Changes) -> Tensor:
        """Squared error of the block, as a part of the square of what is wanted."""
        made = self.run(batch, value, changes)
        return squared_error(made, wanted, batch.mask) / squared_size(wanted, batch.mask)


def parts_in_order(
    model: ir.Model, blocks: Sequence[Block], batches: tuple[Sequence[Batch], ...], report: Report | None
) -> Iterator[tuple[Part, Stream, Stream]]:
    """Each block, and the streams of the samples to learn from and of those to judge by that enter it.

    Both are to have left a block before the next one is asked for. A block that does not begin where the one
    before it ends begins with nothing before it quantized.
    """
    end = None
    for number, block in enumerate(blocks, 1):
        if end != block.start:
            learning, judging = (Stream.at(model, block.start, each) for each in batches)
        yield Part(model, block), learning, judging
        end = block.end
        if report is not None:
            report(number, len(blocks))

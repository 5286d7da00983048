"""The blocks of a transformer: where its graph can be cut so that one value carries everything on.

A block is a layer, attention and feed-forward together; it ends at the sum that joins the feed-forward, or at
the norm that alone reads that sum. Masks and positions are no part of the stream: a program for a block
computes them from the model's inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.ir.feedforward import find_feedforward
from onnxq.ir.flow import source_of
from onnxq.ir.linear import Linear
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.residual import Residual, ResidualStream, find_streams


@dataclass(frozen=True)
class Block:
    """A stretch of the residual stream.

    Attributes:
        start: Name of the value that enters.
        end: Name of the value that leaves.
        linears: Labels of the linears inside.
    """

    start: str
    end: str
    linears: tuple[str, ...]


def find_blocks(model: ir.Model, linears: Mapping[str, Linear]) -> list[Block]:
    """The blocks of the model that hold any of `linears`, in order."""
    norms = _norms_by_input(model)
    blocks = []
    for stream in find_streams(model):
        value = stream.start
        for end in _ends(stream, norms):
            inside = _between(model, value, end)
            labels = tuple(label for label, linear in linears.items() if linear.node in inside)
            if labels:
                blocks.append(Block(str(value.name), str(end.name), labels))
            value = end
    return blocks


def join_blocks(blocks: Sequence[Block], count: int) -> list[Block]:
    """Each `count` blocks in a row as one; blocks of different streams are not joined."""
    joined: list[list[Block]] = []
    for block in blocks:
        if joined and len(joined[-1]) < count and joined[-1][-1].end == block.start:
            joined[-1].append(block)
        else:
            joined.append([block])
    return [
        Block(part[0].start, part[-1].end, tuple(label for block in part for label in block.linears))
        for part in joined
    ]


def _ends(stream: ResidualStream, norms: Mapping[ir.Value, Norm]) -> Iterator[ir.Value]:
    """Values behind which a layer is complete; behind every residual if none of them is a feed-forward."""
    closing = [residual for residual in stream.residuals if _joins_feedforward(residual)]
    for residual in closing or stream.residuals:
        norm = norms.get(residual.output)
        readers = {node for node, _ in residual.output.uses()}
        alone = norm is not None and readers <= set(norm.nodes) and not residual.output.is_graph_output()
        yield norm.output if norm is not None and alone else residual.output


def _joins_feedforward(residual: Residual) -> bool:
    return any(find_feedforward(linear.node) is not None for linear in residual.linears)


def _norms_by_input(model: ir.Model) -> dict[ir.Value, Norm]:
    found = [norm for node in model.graph if isinstance(norm := find_norm(node), Norm)]
    return {source_of(norm.input): norm for norm in found}


def _between(model: ir.Model, start: ir.Value, end: ir.Value) -> Collection[ir.Node]:
    """Nodes that are computed from `start` and that `end` is computed from."""
    below = {start}
    nodes: list[ir.Node] = []
    for node in model.graph:
        if any(value in below for value in node.inputs):
            below.update(node.outputs)
            nodes.append(node)
    above = {end}
    inside: set[ir.Node] = set()
    for node in reversed(nodes):
        if any(value in above for value in node.outputs):
            above.update(value for value in node.inputs if value is not None)
            inside.add(node)
    return inside

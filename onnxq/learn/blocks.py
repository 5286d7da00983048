"""The blocks of a transformer: where its graph can be cut so that one value carries everything on.

A block is a layer, attention and feed-forward together; it ends at the sum that joins the feed-forward, or at
the norm that alone reads that sum. Masks and positions are no part of the stream: a program for a block
computes them from the model's inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.ir.feedforward import find_feedforward
from onnxq.ir.flow import source_of
from onnxq.ir.linear import Linear, linear_giving
from onnxq.ir.norm import Norm, find_norm
from onnxq.ir.residual import SUMS, Residual, ResidualStream, find_streams
from onnxq.ir.walk import is_op, root_of


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
    chains = [(stream.start, _sums(stream)) for stream in find_streams(model)] or _rescaled(model, linears)
    blocks = []
    for value, sums in chains:
        for total in sums:
            end = _settled(total, norms)
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


def _sums(stream: ResidualStream) -> list[ir.Value]:
    """Sums with which a layer is complete; all of them if none joins a feed-forward."""
    closing = [residual for residual in stream.residuals if _joins_feedforward(residual)]
    return [residual.output for residual in closing or stream.residuals]


def _rescaled(model: ir.Model, linears: Mapping[str, Linear]) -> list[tuple[ir.Value, list[ir.Value]]]:
    """The chain of sums of a model whose stream is scaled on its way, and therefore no plain residual stream.

    A layer is complete where a linear that narrows is added to something computed. The first block starts
    where the first linear reads: what bypasses that is computed from the model's inputs, as floats.
    """
    joined: list[tuple[Linear, ir.Value]] = []
    for node in model.graph:
        if is_op(node, *SUMS) and all(value is not None and root_of(value) is None for value in node.inputs):
            given = [linear_giving(value) for value in node.inputs if value is not None]
            made = [linear for linear in given if linear is not None]
            joined += [(made[0], node.outputs[0])] if len(made) == 1 else []
    narrowing = [total for linear, total in joined if linear.channels > linear.columns]
    sums = narrowing or [total for _, total in joined]
    first = next((linear for linear in linears.values()), None)
    return [(first.activation, sums)] if first is not None and sums else []


def _settled(total: ir.Value, norms: Mapping[ir.Value, Norm]) -> ir.Value:
    """A sum, or the norm that alone reads it."""
    norm = norms.get(total)
    readers = {node for node, _ in total.uses()}
    alone = norm is not None and readers <= set(norm.nodes) and not total.is_graph_output()
    return norm.output if norm is not None and alone else total


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

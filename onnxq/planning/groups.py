"""Linears that are decided together, how much their error counts, and which share bytes with an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.edit import label_of
from onnxq.ir.embedding import Embedding, find_embedding
from onnxq.ir.flow import uses_through
from onnxq.ir.linear import Linear
from onnxq.ir.norm import Norm, norm_giving
from onnxq.ir.residual import find_streams
from onnxq.passes.migrate.migration import Migration, is_widely_shared, plan_migration
from onnxq.passes.migrate.places import Place, find_place
from onnxq.passes.migrate.sites import sharing_obstacle
from onnxq.passes.migrate.widen import find_source
from onnxq.planning.options import BLOCK
from onnxq.statistics import Statistics, TensorStatistics


@dataclass(frozen=True, eq=False)
class Group:
    """An activation and linears that read it, which share whatever is done to it.

    Attributes:
        activation: The value [..., K].
        linears: Its readers, in the order of the graph; or one of them, nothing being done to the activation.
        seen: What calibration saw: extremes of the channels, and rows.
        from_norm: Whether a norm gives it, which takes any scale for nothing.
        place: What above it takes a scale and leaves no trace; None if nothing does.
        name: Tells it from other groups.
        copying: Nodes that it takes to repeat channels of the activation; None where they cannot be.
    """

    activation: ir.Value
    linears: tuple[Linear, ...]
    seen: TensorStatistics
    from_norm: bool
    place: Place | Norm | None = None
    name: str = ""
    copying: int | None = None

    @property
    def channels(self) -> int:
        """K."""
        return self.linears[0].channels

    @property
    def columns(self) -> tuple[int, ...]:
        """N of each linear."""
        return tuple(linear.columns for linear in self.linears)


def groups_of(linears: Sequence[Linear], statistics: Statistics, *, apart: bool = False) -> list[Group]:
    """Linears that are decided together.

    Args:
        linears: All that there is a choice for.
        statistics: Channel extremes and rows of their inputs.
        apart: Each by itself, its input being left as it is; else those that read the same activation.
    """
    readers: dict[str, list[Linear]] = {}
    for linear in linears:
        name = label_of(linear.node) if apart else str(linear.activation.name)
        readers.setdefault(name, []).append(linear)
    return [
        Group(
            value := together[0].activation,
            tuple(together),
            statistics[str(value.name)],
            norm_giving(value) is not None,
            None if apart else _place_of(value, together),
            name,
            None if apart or sharing_obstacle(tuple(together)) else find_source(value, tuple(together)).nodes,
        )
        for name, together in readers.items()
    ]


def _place_of(activation: ir.Value, readers: Sequence[Linear]) -> Place | Norm | None:
    """The linear or the norm above `activation` that takes a scale, no node being added anywhere."""
    if any(is_widely_shared(reader) for reader in readers):
        return None
    norm = norm_giving(activation)
    if norm is not None:
        return norm if isinstance(plan_migration(norm, insert_nodes=False), Migration) else None
    place = find_place(activation, len(readers))
    if place is None or any(place.linear.node is reader.node for reader in readers):
        return None
    return place


def is_shared(group: Group) -> bool:
    """Whether the group is one linear whose weight an embedding can read, too, in blocks."""
    if len(group.linears) > 1 or group.channels % BLOCK:
        return False
    (linear,) = group.linears
    users = linear.root.uses() if linear.root is not None else ()
    return any(
        index == 0 and node.graph is linear.node.graph and isinstance(find_embedding(node), Embedding)
        for node, index in users
    )


@dataclass(frozen=True)
class Weigher:
    """How much the error of a linear counts.

    What ends a branch is one of many that the stream of a residual network adds up, and its error is as much
    smaller a part of the sum. That of a linear which gives an output is all there to see.

    Attributes:
        branches: Residuals of the longest stream.
    """

    branches: int

    @classmethod
    def of(cls, model: ir.Model) -> Weigher:
        """That of a model."""
        return cls(max((len(stream.residuals) for stream in find_streams(model)), default=1))

    def weight(self, group: Group) -> float:
        """How many times the error of the group counts."""
        uses = (use for linear in group.linears for use in uses_through(linear.output))
        return float(max(self.branches, 1)) if any(use.is_output for use in uses) else 1.0

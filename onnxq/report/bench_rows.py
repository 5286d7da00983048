"""The rows of `bench` besides its latencies: memory, operators, nodes, providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MemoryRow:
    """What a model takes besides time.

    Attributes:
        model: Which model.
        shape: At which shape.
        size_bytes: Its size on disk, external data included.
        load_ms: The fastest opening.
        loaded_bytes: What opening it added to the memory of a process; None where the system does not tell.
        peak_bytes: Largest memory of a process, Python and the runtime included; None likewise.
    """

    model: str
    shape: str
    size_bytes: int
    load_ms: float
    loaded_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class OperatorRow:
    """The nodes of one operator together, in the graph as the runtime rewrote it.

    Attributes:
        model: Which model.
        shape: At which shape.
        op: The operator.
        nodes: How many nodes.
        us: Microseconds in a run, of each node its best.
        share: Of the time in all nodes.
    """

    model: str
    shape: str
    op: str
    nodes: int
    us: float
    share: float


@dataclass(frozen=True)
class NodeRow:
    """One node, as `OperatorRow`."""

    model: str
    shape: str
    node: str
    op: str
    us: float
    share: float


@dataclass(frozen=True)
class PlacementRow:
    """Which execution provider ran the nodes of a model.

    Attributes:
        model: Which model.
        shape: At which shape.
        provider: The runtime's name of it.
        nodes: Nodes of the rewritten graph that it ran; a part that it compiled is one node.
        ops: How many of each operator.
    """

    model: str
    shape: str
    provider: str
    nodes: int
    ops: Mapping[str, int] = field(default_factory=dict)

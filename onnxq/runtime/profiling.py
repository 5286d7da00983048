"""Where one run of a model spends its time, by node and by operator, and which provider ran what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxq.runtime.feeds import Shapes
from onnxq.runtime.native import Feeds
from onnxq.runtime.settings import SessionSettings
from onnxq.runtime.timing import Contender, Model, Watch, open_contest

_NUMBERED = re.compile(r"_\d+$")
"""What some providers end the names of the parts with that they compile: one operator, for a table."""
RUNS = 10
"""Runs of which the best counts."""


@dataclass(frozen=True)
class NodeTime:
    """Time of one node: its operator, its provider and microseconds a run (its best run)."""

    node: str
    op: str
    provider: str
    us: float


@dataclass(frozen=True)
class Profile:
    """Where one run of a model spends its time.

    Attributes:
        nodes: One entry a node of the optimised graph, slowest first.
        by_op: Microseconds a run by operator, slowest first.
    """

    nodes: tuple[NodeTime, ...]
    by_op: Mapping[str, float]

    @property
    def us(self) -> float:
        """Microseconds in all operators."""
        return sum(self.by_op.values())

    @property
    def by_provider(self) -> dict[str, int]:
        """Nodes of the optimised graph that each execution provider ran, most first."""
        return dict(Counter(node.provider for node in self.nodes).most_common())


def profile(
    model: Model,
    feeds: Feeds | None = None,
    settings: SessionSettings | None = None,
    *,
    shapes: Shapes | None = None,
    runs: int = RUNS,
    timeout: float = 600.0,
) -> Profile:
    """Time every operator of a model, in a process of its own; each node's best of `runs` runs counts."""
    settings = settings or SessionSettings()
    watch = Watch(
        settings.threads,
        provider=settings.provider,
        provider_options=settings.provider_options,
        limit=timeout,
    )
    with open_contest({"model": Contender(model, settings)}, watch) as contest:
        given = contest.feeds(shapes)["model"] if feeds is None else feeds
        return profile_of(contest.trace("model", given, runs), runs)


def profile_of(entries: Sequence[Mapping[str, Any]], runs: int) -> Profile:
    """A profile from the trace of `runs` + 1 runs.

    The executions of a node within a run are summed, and its best run but the first counts.
    """
    rounds = runs + 1
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["index"], entry["node"]), []).append(entry)
    nodes = []
    for (_, node), group in groups.items():
        times = np.array([entry["us"] for entry in group])
        if len(times) % rounds:  # executed a different number of times in each run
            us = float(times.sum()) / rounds
        else:
            us = float(times.reshape(rounds, -1).sum(axis=1)[min(1, runs) :].min())
        op = _NUMBERED.sub("", group[0]["op"])
        nodes.append(NodeTime(node, op, group[0]["provider"], us))
    nodes.sort(key=lambda each: (-each.us, each.node))
    totals: dict[str, float] = {}
    for each in nodes:
        totals[each.op] = totals.get(each.op, 0.0) + each.us
    return Profile(tuple(nodes), dict(sorted(totals.items(), key=lambda item: (-item[1], item[0]))))

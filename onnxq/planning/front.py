"""From options of single groups to plans of the whole model: what each further microsecond buys.

Every group starts with its cheapest option. The step that takes away the most error for its time is taken
first, then the next; since each group offers only the steps on its own convex hull, what a microsecond buys
falls all along, and the plans passed on the way are the Pareto front of error against time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxq.planning.options import Option


@dataclass(frozen=True)
class Measured:
    """An option of a group, with what it costs and loses.

    Attributes:
        option: Which.
        cost: Microseconds, or bytes, as all options are counted.
        errors: Noise over signal of each linear of the group.
        weight: How many times these count.
    """

    option: Option
    cost: float
    errors: tuple[float, ...]
    weight: float = 1.0

    @property
    def error(self) -> float:
        """Of the group: its linears' errors added, as they add up in the model."""
        return self.weight * sum(self.errors)


@dataclass(frozen=True)
class Point:
    """One plan on the front.

    Attributes:
        cost: Of all groups, in microseconds or bytes.
        error: Error of all groups.
        chosen: Which option of each group, by its place in what the group measured.
        changed: The group whose option the step to this plan changed; "" for the first.
    """

    cost: float
    error: float
    chosen: Mapping[str, int]
    changed: str = ""


def pareto_front(groups: Mapping[str, Sequence[Measured]]) -> tuple[Point, ...]:
    """Plans from the cheapest to the most accurate.

    Args:
        groups: By name, the options of each group; at least one.
    """
    chosen = {name: _hull(options)[0] for name, options in groups.items()}
    cost = sum(groups[name][index].cost for name, index in chosen.items())
    error = sum(groups[name][index].error for name, index in chosen.items())
    points = [Point(cost, error, dict(chosen))]
    steps = sorted(
        (step for name, options in groups.items() for step in _steps(name, options)),
        key=lambda step: -step.worth,
    )
    for step in steps:
        chosen[step.group] = step.index
        cost, error = cost + step.cost, error - step.gain
        points.append(Point(cost, max(error, 0.0), dict(chosen), step.group))
    return tuple(points)


def balanced_point(front: Sequence[Point], exchange: float, enough: float = 0.0) -> int:
    """The last plan before a step that is not worth its time.

    A step is worth it if the part of the error that it takes away is at least `exchange` times the part of
    the time that it adds. An error under `enough` counts as that much, so that little is paid to lower it.
    """
    for index in range(1, len(front)):
        before, after = front[index - 1], front[index]
        gained = (before.error - after.error) / max(before.error, enough, 1e-300)
        paid = (after.cost - before.cost) / before.cost
        if gained < exchange * paid:
            return index - 1
    return len(front) - 1


@dataclass(frozen=True)
class _Step:
    group: str
    index: int
    cost: float
    gain: float

    @property
    def worth(self) -> float:
        return self.gain / max(self.cost, 1e-9)


def _steps(name: str, options: Sequence[Measured]) -> Iterator[_Step]:
    hull = _hull(options)
    for one, two in itertools.pairwise(hull):
        yield _Step(name, two, options[two].cost - options[one].cost, options[one].error - options[two].error)


def _hull(options: Sequence[Measured]) -> list[int]:
    """Options that no mixture of a cheaper and a more accurate one beats, from the cheapest on."""
    order = sorted(range(len(options)), key=lambda index: (options[index].cost, options[index].error))
    hull: list[int] = []
    for index in order:
        if hull and options[index].error >= options[hull[-1]].error:
            continue
        while len(hull) > 1 and _worth(options, hull[-1], index) >= _worth(options, hull[-2], hull[-1]):
            hull.pop()
        hull.append(index)
    return hull


def _worth(options: Sequence[Measured], one: int, two: int) -> float:
    return (options[one].error - options[two].error) / max(options[two].cost - options[one].cost, 1e-9)

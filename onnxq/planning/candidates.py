"""What can be done to the linears of one group, with what each way costs and loses, to choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from onnxq.edit import label_of
from onnxq.planning.alternatives import alternatives
from onnxq.planning.front import Measured, Point
from onnxq.planning.groups import Group
from onnxq.planning.layer_plan import Considered, LayerPlan
from onnxq.planning.options import Count, Option
from onnxq.planning.reasons import decibels, evidence, reason_of
from onnxq.planning.settings import PlanSettings
from onnxq.planning.trial import Trial


@dataclass(frozen=True, eq=False)
class Candidates:
    """What can be done to the linears of a group, measured.

    Attributes:
        labels: Names of the linears.
        measured: The options that were tried.
        channels: The channels that leave a product, by how many do.
        shared: Whether an embedding can read the weight, too, in blocks.
        count: What costs are.
    """

    labels: tuple[str, ...]
    measured: tuple[Measured, ...]
    channels: Mapping[int, tuple[int, ...]]
    shared: bool = False
    count: Count = "time"

    @classmethod
    def of(cls, group: Group, settings: PlanSettings, weight: float) -> Candidates:
        """Try what is worth a trial; the group's errors count `weight` times."""
        trial = Trial(group, settings)
        measured = tuple(
            Measured(option, _cost(option, group, settings), trial.errors(option), weight)
            for option in alternatives(trial)
        )
        counts = {each.option.split for each in measured}
        channels = {count: tuple(trial.channels(count).tolist()) for count in counts}
        labels = tuple(label_of(linear.node) for linear in group.linears)
        return cls(labels, measured, channels, trial.shares_table, settings.count)

    def weighed(self, weight: float) -> Candidates:
        """The same, whose errors count `weight` times."""
        return replace(self, measured=tuple(replace(each, weight=weight) for each in self.measured))

    def among(self, allowed: Callable[[Option], bool]) -> Candidates:
        """The same less what is not allowed, unless that is all there is."""
        return replace(
            self, measured=tuple(each for each in self.measured if allowed(each.option)) or self.measured
        )

    def layer(self, blank: LayerPlan, point: Point) -> LayerPlan:
        """`blank` with what `point` chose for it."""
        index, own = point.chosen[blank.group], self.labels.index(blank.name)
        chosen = self.measured[index]
        return replace(
            blank,
            option=chosen.option,
            reason=reason_of(chosen, self.measured, self.shared),
            evidence=evidence(chosen, self.measured, self.count),
            sqnr_db=decibels(chosen.errors[own]),
            outliers=self.channels[chosen.option.split],
            considered=tuple(
                Considered(str(each.option), decibels(each.errors[own]), each.cost)
                for each in sorted(self.measured, key=lambda each: each.cost)
            ),
        )


def _cost(option: Option, group: Group, settings: PlanSettings) -> float:
    if settings.count == "bytes":
        return option.size(group.channels, group.columns)
    biased = [linear.columns for linear in group.linears if linear.bias is not None]
    return sum(
        option.cost(
            settings.target.costs,
            rows,
            group.channels,
            group.columns,
            scaling=option.form == "int8 static",
            biased=biased,
            copying=group.copying or 0,
        )
        for rows in settings.rows_of(str(group.activation.name))
    )

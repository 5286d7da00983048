"""Passes on the model of a stage: checked as the user wants it, kept where that is, data run through once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.api.checkpoints import Checkpoints
from onnxq.api.stage import Stage
from onnxq.contract import AnyPass, names_wanted
from onnxq.pipeline import Gather, PipelineResult, run
from onnxq.recipe import OptimizeSettings
from onnxq.statistics import Statistic, Statistics
from onnxq.verify import OracleSettings

Run = tuple[Sequence[AnyPass], PipelineResult]
"""Passes, and what came of them."""


@dataclass(frozen=True)
class Execution:
    """How passes are run.

    Attributes:
        stage: The data, and who is told of progress.
        settings: How far results are checked.
        checkpoints: Where results are kept.
    """

    stage: Stage
    settings: OptimizeSettings
    checkpoints: Checkpoints

    def run(self, model: ir.Model, passes: Sequence[AnyPass], gather: Gather | None = None) -> PipelineResult:
        """What `passes` make of `model`, from the checkpoints if it is there.

        Args:
            model: The model.
            passes: In the order given.
            gather: Gives statistics; those of the stage if None.
        """
        return self.checkpoints.run(model, passes, lambda: self.run_now(model, passes, gather))

    def run_now(
        self, model: ir.Model, passes: Sequence[AnyPass], gather: Gather | None = None
    ) -> PipelineResult:
        """The same, whatever is kept."""
        sizes = 1 if self.settings.effort == "fast" else 2
        return run(
            model,
            passes,
            gather=gather or self.stage.gather,
            verify=self.settings.verify,
            progress=self.stage.step,
            oracle=OracleSettings(seeds=1, sizes=sizes, seed=self.settings.seed),
        )


def gather_once(passes: Sequence[AnyPass], gather: Gather) -> Gather:
    """What all of `passes` ask for, gathered of the state that the first of them asks of.

    A value that none of them replaces keeps its name; exact passes change its last bits at most, and behind
    rounding weights are fitted to what the float model computes. So the data is run through once.
    """
    known: list[Statistics] = []

    def answer(state: ir.Model, asked: Mapping[Statistic, Collection[str]]) -> Statistics:
        if not known:
            known.append(gather(state, names_wanted(passes, state)))
        return known[0]

    return answer

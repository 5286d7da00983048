"""Statistics of a model's values, to keep."""

from __future__ import annotations

from typing import Any

from onnxq.api.stage import Progress, Stage, watched_values
from onnxq.calibration import collect
from onnxq.interop import Acceptable
from onnxq.recipe import DataSettings
from onnxq.statistics import Statistic, Statistics

KINDS = (
    Statistic.CHANNEL_EXTREMES,
    Statistic.TOKEN_EXTREMES,
    Statistic.HISTOGRAM,
    Statistic.RAW_MOMENTS,
)
"""What is kept of each value: everything but second moments, which take C x C numbers."""


def calibrate(
    model: Acceptable,
    calibration: Any,
    *,
    data: DataSettings | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of the input of every linear and the output of every norm, over all of the data.

    Args:
        model: As for `optimize`.
        calibration: Data; nothing is held out.
        data: How the data is read.
        threads: Threads of the runtime; None for all cores.
        progress: Called with a stage in words, steps done and steps in all.
    """
    stage = Stage.undivided(model, calibration, data, threads=threads, progress=progress)
    names = watched_values(stage.model)
    return collect(
        stage.model,
        stage.calibration,
        dict.fromkeys(KINDS, names),
        threads=stage.threads,
        progress=lambda done, total: stage.progress("calibrating", done, total),
    )

"""Two models on the same data."""

from __future__ import annotations

from typing import Any

from onnxq.api import records
from onnxq.api.evaluate import measure_fidelity
from onnxq.api.stage import Progress, Stage
from onnxq.errors import ModelError
from onnxq.interop import Acceptable, as_model
from onnxq.recipe import DataSettings
from onnxq.report.results import CompareResult


def compare(
    a: Acceptable,
    b: Acceptable,
    data: Any,
    *,
    options: DataSettings | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CompareResult:
    """How close the outputs of `b` are to those of `a`, as the runtime runs both by default.

    Args:
        a: The reference; anything `optimize` accepts.
        b: The candidate.
        data: Inputs for both; all of it counts.
        options: How the data is read.
        threads: Threads of the runtime; None for all cores.
        progress: Called with a stage in words, steps done and steps in all.

    Raises:
        ModelError: The two have other inputs, so that no data fits both ("other-inputs").
    """
    stage = Stage.undivided(a, data, options, threads=threads, progress=progress)
    candidate = as_model(b)
    ours, theirs = ({value.name for value in each.graph.inputs} for each in (stage.model, candidate))
    if not theirs <= ours:
        raise ModelError(
            f"the second model wants {', '.join(sorted(map(str, theirs - ours)))}, which the first has not",
            hint="compare a model with a rewritten copy of it",
            slug="other-inputs",
        )
    found = measure_fidelity(
        stage.model,
        candidate,
        stage.calibration,
        stage.threads,
        lambda done, total: stage.progress("comparing", done, total),
    )
    return CompareResult(
        reference=records.model_record(stage.model, records.name_of(a, stage.model)),
        candidate=records.model_record(candidate, records.name_of(b, candidate)),
        data=records.held_out_record(stage.calibration),
        fidelity=records.fidelity_rows(found),
        verdict="cannot judge" if found.mismatch else "equal" if found.identical else "different",
        note=found.mismatch,
    )

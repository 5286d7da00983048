"""What a build is told: one JSON object as the only argument of its command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """One model to quantize.

    Attributes:
        subject: Name of the model's family: "minilm", "vit" or "smollm2".
        model: The original, an ONNX file.
        calibration: An .npz file with an array for each input; its first axis counts samples.
        batch: Samples in one run while calibrating.
        target: The file to write.
        options: Of the tool, as its contestant says.
    """

    subject: str
    model: Path
    calibration: Path
    batch: int
    target: Path
    options: Mapping[str, Any]

    def batches(self) -> list[dict[str, np.ndarray]]:
        """All calibration samples, cut into batches."""
        with np.load(self.calibration, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        count = len(next(iter(arrays.values())))
        return [
            {name: array[at : at + self.batch] for name, array in arrays.items()}
            for at in range(0, count, self.batch)
        ]


def write_job(job: Job) -> str:
    """The command-line argument that `read_job` understands."""
    return json.dumps(job.__dict__, default=str)


def read_job() -> Job:
    """The job that this process was started for."""
    fields = json.loads(sys.argv[1])
    paths = {name: Path(fields[name]).resolve() for name in ("model", "calibration", "target")}
    return Job(**{**fields, **paths})

"""Calibration: data that fits a model, and what the model's values look like on it."""

from onnxq.calibration.collection import collect
from onnxq.calibration.inputs import InputSpec, input_specs
from onnxq.calibration.source import Batch, DataOptions, DataSource, Split, split
from onnxq.calibration.sources import open_data
from onnxq.calibration.unlike import split_unlike

__all__ = [
    "Batch",
    "DataOptions",
    "DataSource",
    "InputSpec",
    "Split",
    "collect",
    "input_specs",
    "open_data",
    "split",
    "split_unlike",
]

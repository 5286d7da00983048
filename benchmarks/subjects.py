"""The models under test: file, data, what they are judged by, and the shapes they are timed at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import pictures
from benchmarks.data import load, prepare
from benchmarks.export import Arrays
from benchmarks.models import fetch


@dataclass(frozen=True)
class Subject:
    """One exported model.

    Attributes:
        model: Name of its folder in the cache, and of its data.
        file: Its ONNX file.
        tasks: Names of the tasks it is judged by.
        batch: Samples in one run while calibrating.
        timed: Samples in one run while timing, by the name of the shape.
        calibration: Options of `onnxq optimize` that name the data, "{data}" being the folder.
    """

    model: str
    file: str
    tasks: tuple[str, ...]
    batch: int
    timed: Mapping[str, int]
    calibration: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The model itself."""
        return fetch(self.model) / self.file

    @property
    def data(self) -> Path:
        """The folder of its inputs."""
        return prepare(self.model)

    def feeds(self, shape: str) -> Arrays:
        """Test inputs in one of the shapes it is timed at."""
        return {name: array[: self.timed[shape]] for name, array in load(self.data / "test.npz").items()}

    def data_options(self) -> list[str]:
        """Options of `onnxq optimize` for its calibration data."""
        options = [option.format(data=self.data) for option in self.calibration]
        return [*options, "--batch-size", str(self.batch)]


_TEXT = ("--calib", "{data}/calibration.npz")
_IMAGES = (
    *("--calib", "{data}/calibration", "--image-size", str(pictures.SIZE)),
    *("--mean", ",".join(map(str, pictures.MEAN)), "--std", ",".join(map(str, pictures.STD))),
)
_SENTENCES = ("sentences", "retrieval")
_ENCODED = {"8x128": 8, "1x128": 1}

SUBJECTS: Mapping[str, Subject] = {
    "minilm-torchscript": Subject("minilm", "torchscript.onnx", _SENTENCES, 8, _ENCODED, _TEXT),
    "minilm-dynamo": Subject("minilm", "dynamo.onnx", _SENTENCES, 8, _ENCODED, _TEXT),
    "vit": Subject("vit", "model.onnx", ("importance",), 4, {"1x224x224": 1}, _IMAGES),
    "smollm2": Subject("smollm2", "model.onnx", ("language",), 1, {"1x256": 1}, _TEXT),
    "smollm2-cache": Subject("smollm2-cache", "model.onnx", ("cached-language",), 1, {"1x256": 1}, _TEXT),
}

"""A model as the files it consists of, to be copied elsewhere as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxq.files.external import Bytes, DataFolder
from onnxq.files.limits import DEFAULT_LIMITS, Limits
from onnxq.files.load import read_proto
from onnxq.files.validate import check_model


@dataclass(frozen=True)
class Parts:
    """What a model consists of on disk.

    Attributes:
        model: The bytes of the model file.
        data: The bytes of its external data by location, relative to the model and inside its folder.
    """

    model: bytes
    data: Mapping[str, Bytes]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return len(self.model) + sum(part.nbytes for part in self.data.values())


def read_parts(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Parts:
    """The bytes of a model's files, judged as by `load`: what is returned is what was looked at.

    Raises:
        NotAModel, UnsafeModel, InvalidModel, UnsupportedModel: As `load`.
    """
    path = Path(path)
    content, proto = read_proto(path, limits)
    folder = DataFolder(path)
    check_model(proto, folder, limits)
    return Parts(content, folder.files)

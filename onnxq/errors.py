"""Every error that onnxq raises on purpose, and the exit code of each.

    OnnxqError (1)
    ├── UsageProblem (2)            an option, a pass name or a recipe that does not exist
    ├── ModelError (3)
    │   ├── NotAModel               empty, an LFS pointer, a web page, an archive, truncated ...
    │   ├── InvalidModel            a model that breaks the ONNX rules
    │   └── UnsupportedModel        a model that needs what onnxq does not do
    ├── UnsafeModel (4)
    │   ├── ExternalDataError       a data file outside the model's folder, out of bounds ...
    │   └── LimitExceeded           a size that a hostile model could have chosen
    ├── VerificationFailed (5)      a rewritten model does not compute what it promised
    ├── PassFailed (6)              a bug in a pass
    ├── CalibrationError (7)        data that does not fit the model
    ├── BackendError (8)            the runtime is missing, crashed, ran out of time or memory
    ├── OutputError (9)             the result could not be written
    └── GoalMissed (10)             a correct result that is not as fast or as faithful as was asked

The number is the exit code of the command line; a class without one has that of its parent.
"""

from __future__ import annotations

from typing import ClassVar


class OnnxqError(Exception):
    """The root: a message that names the thing, and a hint that names the way out.

    Args:
        message: What is wrong and where.
        hint: What the reader can do about it; empty if nothing.
        slug: A stable kebab-case word for this kind of wrongness, e.g. ``"lfs-pointer"``.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", slug: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.slug = slug

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageProblem(OnnxqError):
    """An option, a pass name or a recipe key that does not exist or does not fit."""

    exit_code = 2


class ModelError(OnnxqError):
    """The model file is not what it should be."""

    exit_code = 3


class NotAModel(ModelError):
    """The file is something else than an ONNX model; the slug says what."""


class InvalidModel(ModelError):
    """The file is an ONNX model that breaks the rules of ONNX."""


class UnsupportedModel(ModelError):
    """The model is valid and needs a feature that onnxq does not have."""


class UnsafeModel(OnnxqError):
    """The model asks for something that a hostile file would ask for."""

    exit_code = 4


class ExternalDataError(UnsafeModel):
    """External data that is outside the model's folder, not a regular file, or out of bounds."""


class LimitExceeded(UnsafeModel):
    """A size or depth over a limit that protects the machine."""


class VerificationFailed(OnnxqError):
    """A rewritten model does not compute what its passes promised."""

    exit_code = 5


class PassFailed(OnnxqError):
    """A pass raised: a bug in that pass, with the model left as it was before."""

    exit_code = 6


class CalibrationError(OnnxqError):
    """Calibration data that is missing, does not fit the model, or is not finite."""

    exit_code = 7


class BackendError(OnnxqError):
    """The runtime is missing, refused the model, crashed, or ran out of time or memory."""

    exit_code = 8


class OutputError(OnnxqError):
    """The result could not be written; whatever was at the target is still there."""

    exit_code = 9


class GoalMissed(OnnxqError):
    """The result is correct and misses the fidelity, speed or size that was asked for."""

    exit_code = 10

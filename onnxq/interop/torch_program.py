"""What `torch.onnx.export(..., dynamo=True)` returns, as a model. Torch itself is not imported."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.errors import UnsupportedModel


def is_torch_program(thing: object) -> bool:
    """Whether `thing` is a torch `ONNXProgram`, by the name of its class and what it carries."""
    return any(cls.__name__ == "ONNXProgram" for cls in type(thing).__mro__) and hasattr(thing, "model")


def from_torch_program(program: object) -> ir.Model:
    """The model inside an exported program; its weights stay those of the torch module until they are read.

    Raises:
        UnsupportedModel: The program holds no onnx-ir model, as those of torch before 2.6.
    """
    model = getattr(program, "model", None)
    if isinstance(model, ir.Model):
        return model
    raise UnsupportedModel(
        f"the torch program holds a {type(model).__name__}, not an onnx-ir model",
        hint="Upgrade torch to 2.6 or later, or save the program to a file and give its path.",
        slug="torch-program",
    )

"""Models as other tools hold them, and other tools' rewrites as passes."""

from onnxq.interop.accept import Acceptable, as_model
from onnxq.interop.graphsurgeon import GraphSurgeonPass, from_graphsurgeon, to_graphsurgeon
from onnxq.interop.torch_program import from_torch_program

__all__ = [
    "Acceptable",
    "GraphSurgeonPass",
    "as_model",
    "from_graphsurgeon",
    "from_torch_program",
    "to_graphsurgeon",
]

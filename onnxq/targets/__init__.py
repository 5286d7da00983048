"""What a processor runs fastest in low precision: the form that quantization has to produce for it."""

from onnxq.targets.target import TARGETS, Target, detect, find

__all__ = ["TARGETS", "Target", "detect", "find"]

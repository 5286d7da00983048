"""What a processor runs fastest in low precision: the form that quantization has to produce for it."""

from onnxq.targets.catalogue import TARGETS
from onnxq.targets.choose import detect, find
from onnxq.targets.rules import Violation, violations
from onnxq.targets.target import Target

__all__ = ["TARGETS", "Target", "Violation", "detect", "find", "violations"]

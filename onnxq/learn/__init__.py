"""Methods that need gradients: an ONNX graph as a differentiable function, and what is learned on it.

Needs the extra ``torch``. Nothing else in the package imports this one before torch is asked for.
"""

from __future__ import annotations

from onnxq.errors import BackendError

try:
    import torch as torch
except ImportError as error:
    raise BackendError(
        f"torch cannot be imported: {error}",
        hint='pip install "onnxq[torch]"; methods that learn need it, everything else does without',
        slug="no-torch",
    ) from None

from onnxq.learn.low_rank import Corrected as Corrected
from onnxq.learn.low_rank import LowRankSettings as LowRankSettings
from onnxq.learn.low_rank import learn_low_rank as learn_low_rank
from onnxq.learn.program import Changes as Changes
from onnxq.learn.program import Program as Program
from onnxq.learn.reconstruct import Codes as Codes
from onnxq.learn.reconstruct import Reconstructed as Reconstructed
from onnxq.learn.reconstruct import ReconstructSettings as ReconstructSettings
from onnxq.learn.reconstruct import learn_rounding as learn_rounding
from onnxq.learn.steps import LearnedRanges as LearnedRanges
from onnxq.learn.steps import StepSettings as StepSettings
from onnxq.learn.steps import learn_steps as learn_steps
from onnxq.learn.stream import BlockResult as BlockResult

"""Runs passes: each is checked, rolled back if it breaks its promise, and leaves a journal."""

from onnxq.pipeline.apply import apply_pass
from onnxq.pipeline.checks import broken_promise, checker_complaint, signature_of
from onnxq.pipeline.results import PassResult, PipelineResult, Step
from onnxq.pipeline.run import Gather, Verify, run

__all__ = [
    "Gather",
    "PassResult",
    "PipelineResult",
    "Step",
    "Verify",
    "apply_pass",
    "broken_promise",
    "checker_complaint",
    "run",
    "signature_of",
]

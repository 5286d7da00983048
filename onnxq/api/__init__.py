"""What onnxq does, one function each: the same verbs as on the command line."""

from onnxq.api.calibration import calibrate
from onnxq.api.comparison import compare
from onnxq.api.demonstration import demo
from onnxq.api.diagnosis import doctor
from onnxq.api.inspection import inspect
from onnxq.api.latency import bench
from onnxq.api.opening import session
from onnxq.api.optimization import OptimizeResult, optimize
from onnxq.api.rewrite import ApplyResult, apply

__all__ = [
    "ApplyResult",
    "OptimizeResult",
    "apply",
    "bench",
    "calibrate",
    "compare",
    "demo",
    "doctor",
    "inspect",
    "optimize",
    "session",
]

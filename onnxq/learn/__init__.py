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

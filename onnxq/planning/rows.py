"""How many rows each linear multiplies at the shapes that a model is wanted for: what its cost depends on.

One run at each shape tells. No rule of thumb would: patches of an image are known to the model alone, and a
language model's head may look at the last token only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxq.calibration.taps import find_targets, shapes_in_run
from onnxq.ir.linear import Linear, find_linear
from onnxq.runtime.feeds import feeds_for, ports_of

Case = Mapping[str, tuple[int, ...]]
"""Shapes of inputs and sizes of dimensions by name; what is not named follows, or takes a usual size."""


def rows_at(model: ir.Model, cases: Sequence[Case], threads: int = 0) -> dict[str, tuple[int, ...]]:
    """Rows of what the linears of the main graph read, in each of `cases`, by the name of the activation.

    Args:
        model: A float model.
        cases: Shapes; one that names nothing is left out, as nobody can say what the model is wanted for.
        threads: Threads of the runtime; 0 leaves it to the runtime.

    Raises:
        UsageProblem: A shape fits no input, as `onnxq.runtime.feeds.feeds_for` says.
        BackendError: The model does not run at a shape.
    """
    named = [case for case in cases if case]
    if not named:
        return {}
    linears = (linear for node in model.graph if isinstance(linear := find_linear(node), Linear))
    names = dict.fromkeys(str(linear.activation.name) for linear in linears)
    targets = find_targets(model, names)
    runs = []
    for case in named:
        feeds = feeds_for(ports_of(model), case)
        shapes = {name: feeds[name].shape for name in targets.inputs if name in feeds}
        if targets.computed:
            shapes |= shapes_in_run(model, targets.computed, feeds, threads)
        runs.append(shapes)
    return {name: tuple(math.prod(shapes[name][:-1]) for shapes in runs) for name in runs[0]}

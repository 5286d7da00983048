"""What the runtime makes of a model that is quantized already, by whatever tool: kernels, and traps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.errors import BackendError
from onnxq.report.measures import Rejection
from onnxq.runtime import (
    Worker,
    confirm_kernels,
    expected_kernels,
    find_miscomputed,
    find_slow,
    find_unfused,
    kernels_of,
    optimized_graph,
)


@dataclass(frozen=True)
class Quantized:
    """A quantized model as the runtime runs it.

    Attributes:
        products: Nodes that are meant to run in low precision; 0 for a float model, of which nothing is told.
        kernels: Low-precision kernels of the runtime's own graph, and how often each occurs.
        traps: Nodes that run slowly or compute something else, and why.
        refused: What the runtime says where it does not open the model; "" if it does.
    """

    products: int = 0
    kernels: Mapping[str, int] = field(default_factory=dict)
    traps: tuple[Rejection, ...] = ()
    refused: str = ""

    @property
    def hints(self) -> tuple[str, ...]:
        """What a reader should know, a sentence each."""
        if self.refused:
            return (f"Which kernels it reaches is not known: {self.refused}",)
        if not self.products:
            return ()
        if self.traps:
            return (f"{len(self.traps)} nodes run slowly or wrongly in ONNX Runtime; the table says why.",)
        return (f"All {self.products} quantized nodes reach their low-precision kernels.",)


def look_at_kernels(model: ir.Model) -> Quantized:
    """Open a quantized model in a worker process; compare its kernels with those that it is meant for."""
    expected = expected_kernels(model)
    wrong = tuple(Rejection(trap.reason, trap.node) for trap in find_miscomputed(model))
    if not expected:
        return Quantized(len(wrong), traps=wrong)
    try:
        with Worker() as worker:
            optimized = optimized_graph(model, worker=worker)
    except BackendError as error:
        return Quantized(len(expected), traps=wrong, refused=error.message)

    def slow() -> Iterator[Rejection]:
        told = {each.node for each in wrong}
        for landing in confirm_kernels(expected, optimized):
            if landing.reason and landing.node not in told:
                told.add(landing.node)
                yield Rejection(landing.reason, landing.node)
        for trap in (*find_slow(optimized), *find_unfused(optimized)):
            if trap.node not in told:
                yield Rejection(trap.reason, trap.node)

    return Quantized(len(expected), kernels_of(optimized), (*wrong, *slow()))

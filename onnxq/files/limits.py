"""Bounds on what a model may ask of the machine before anything is allocated for it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.errors import LimitExceeded


@dataclass(frozen=True)
class Limits:
    """Sizes that no honest model exceeds. Raise one for a model that you trust.

    Attributes:
        max_file_bytes: Size of the model file itself; protobuf cannot hold more than 2 GiB.
        max_nodes: Nodes in all graphs, counted as if every function call were expanded.
        max_nesting: Depth of graphs inside graphs (If, Loop, Scan).
        max_call_depth: Length of a chain of functions that call functions.
        max_rank: Dimensions of one tensor.
        max_tensor_bytes: Bytes of one tensor.
        max_total_bytes: Bytes of all tensors together, each counted as often as it is mentioned.
    """

    max_file_bytes: int = 2**31 - 1
    max_nodes: int = 1_000_000
    max_nesting: int = 32
    max_call_depth: int = 128
    max_rank: int = 32
    max_tensor_bytes: int = 64 * 2**30
    max_total_bytes: int = 512 * 2**30

    def check(self, name: str, asked: int, where: str) -> None:
        """Raise `LimitExceeded` if `asked` is over the limit `name`."""
        allowed = getattr(self, name)
        if asked > allowed:
            raise LimitExceeded(
                f"{where}: {asked:,} is over the limit {name} = {allowed:,}",
                hint=f"If you trust the model: onnxq.files.load(path, limits=Limits({name}={asked})).",
                slug=name.replace("_", "-"),
            )


DEFAULT_LIMITS = Limits()

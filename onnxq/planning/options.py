"""The ways in which the linears that read one activation can be computed, and what each way costs in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnxq.ir.mixing import BLOCK as MIXED
from onnxq.targets.costs import Kernel, KernelCosts

Form = Literal["int8 static", "int8 per-token", "int8 blocks", "int4 blocks", "float"]
Count = Literal["time", "bytes"]
"""What an option costs: microseconds that it takes, or bytes of its weights."""
BLOCK = 64
"""Channels that share a scale in products in blocks."""

_KERNELS: Mapping[Form, Kernel] = {
    "int8 static": "integer",
    "int8 per-token": "integer",
    "int8 blocks": "block",
    "int4 blocks": "block4",
    "float": "float",
}
_SUM_BYTES = 12.0
"""Bytes of a join for each output: two floats read, one written."""
_QUANTIZE_BYTES = 5.0
_GATHER_BYTES = 24.0
"""What picking single channels takes for each: they are copied one by one."""


@dataclass(frozen=True)
class Option:
    """One way to compute the linears that read an activation.

    Attributes:
        form: How the products are executed.
        split: Channels, those that reach furthest, that are multiplied in float beside an integer product.
        scaled: Whether channels are evened out first.
        rotated: Whether every few channels are mixed first.
        copied: Channels that are added because those that reach furthest go into several smaller copies.
    """

    form: Form = "int8 static"
    split: int = 0
    scaled: bool = False
    rotated: bool = False
    copied: int = 0

    def __str__(self) -> str:
        extras = ["channels evened out"] if self.scaled else []
        extras += ["channels rotated"] if self.rotated else []
        extras += [f"{self.split} channels in float"] if self.split else []
        extras += [f"{self.copied} more channels as copies"] if self.copied else []
        return ", ".join([self.form, *extras])

    def cost(
        self,
        costs: KernelCosts,
        tokens: int,
        channels: int,
        columns: Sequence[int],
        *,
        scaling: bool = True,
        biased: Sequence[int] = (),
        copying: int = 0,
    ) -> float:
        """Microseconds on one thread.

        Args:
            costs: Rates of the processor.
            tokens: Rows of the activation.
            channels: K.
            columns: N of each linear that reads the activation.
            scaling: Whether evening channels out takes a Mul.
            biased: N of each linear with a bias, which comes behind a product with scales by token.
            copying: Nodes that repeat channels where they are copied.
        """
        total = costs.elementwise(tokens, channels) if self.scaled and scaling else 0.0
        channels += self.copied
        if self.copied:
            total += copying * costs.elementwise(tokens, channels, _GATHER_BYTES)
        if self.rotated:  # one small matrix, which stays where it is
            total += costs.product(tokens * channels // MIXED, MIXED, MIXED, "float")
        kernel = _KERNELS[self.form]
        total += sum(costs.product(tokens, channels, each, kernel) for each in columns)
        if kernel != "integer":
            return total
        total += costs.elementwise(tokens, channels, _QUANTIZE_BYTES)
        if self.form == "int8 per-token":
            total += costs.scales_by_token(tokens, channels, columns)
            total += sum(costs.elementwise(tokens, each) for each in biased)
        if self.split:
            total += costs.elementwise(tokens, 1, 128.0)  # a cache line or two of each token, sliced off
            for each in columns:
                total += costs.product(tokens, self.split, each, "narrow")
                total += costs.elementwise(tokens, each, _SUM_BYTES)
        return total

    def size(self, channels: int, columns: Sequence[int]) -> float:
        """Bytes of the weights, scales and zero points included; arguments as those of `cost`."""
        numbers = channels * sum(columns)
        each = {"float": 4.0, "int8 blocks": 1 + 4 / BLOCK, "int4 blocks": 0.5 + 4.5 / BLOCK}
        return numbers * each.get(self.form, 1.0)

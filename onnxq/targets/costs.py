"""What kernels cost: rates of one thread, to weigh one form of a layer against another before either exists.

A product takes a time that is a line in its rows: what reading the weights takes, however few the rows, and
then so much for each. Two rates say which line, that at one row and that at `ROWS`. Only ratios between forms
enter a choice; what a plan costs is timed afterwards.

The figures at many rows are of onnxruntime's CPU provider on a Zen 4 core with AVX512-VNNI, weights of
384 x 1536 to 768 x 3072. Those at one row are of an Ice Lake core whose caches hold none of the weights,
as in a model that is larger than they are: there bytes decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ROWS = 128
"""Rows that the rates of many rows are of."""
FLOATS_READ_AND_WRITTEN = 8.0
"""Bytes of each."""
Kernel = Literal["float", "integer", "block", "block4", "narrow"]
"""A product of floats; of uint8 and int8; MatMulNBits of 8 bits; of 4 bits; floats, but few columns."""


@dataclass(frozen=True)
class KernelCosts:
    """Rates of one thread: multiply-adds in a microsecond, if nothing else is said.

    Attributes:
        float_macs: Of a float product with `ROWS` rows.
        integer_macs: Of uint8 times int8.
        block_macs: Of MatMulNBits with 8 bits.
        block4_macs: Of MatMulNBits with 4 bits.
        narrow_macs: Of a float product with fewer than 16 rows or columns in its weight, however many rows.
        float_row_macs: Of a float product with one row.
        integer_row_macs: Of uint8 times int8 with one row.
        block_row_macs: Of MatMulNBits with 8 bits and one row.
        block4_row_macs: Of MatMulNBits with 4 bits and one row.
        traffic: Bytes per microsecond of an elementwise operator, read and written.
        token_elements: Elements per microsecond of an activation for whose tokens scales are found.
        token_call: Microseconds of the same, however few elements.
        call: Microseconds of any operator, however small.
    """

    float_macs: float = 48_000.0
    integer_macs: float = 170_000.0
    block_macs: float = 85_000.0
    block4_macs: float = 75_000.0
    narrow_macs: float = 20_000.0
    float_row_macs: float = 2_700.0
    integer_row_macs: float = 9_500.0
    block_row_macs: float = 7_800.0
    block4_row_macs: float = 13_000.0
    traffic: float = 40_000.0
    token_elements: float = 5_000.0
    token_call: float = 12.0
    call: float = 1.5

    def elementwise(self, tokens: int, channels: int, bytes_each: float = FLOATS_READ_AND_WRITTEN) -> float:
        """Microseconds of one pass over [tokens, channels], which reads and writes floats or `bytes_each`."""
        return self.call + tokens * channels * bytes_each / self.traffic

    def product(self, tokens: int, channels: int, columns: int, kernel: Kernel) -> float:
        """Microseconds of a product [tokens, channels] x [channels, columns]."""
        at_one, at_many = self._rates(kernel)
        work = channels * columns
        first = work / at_one
        another = max(work * ROWS / at_many - first, 0.0) / (ROWS - 1)
        return self.call + first + max(tokens - 1, 0) * another

    def scales_by_token(self, tokens: int, channels: int, columns: Sequence[int]) -> float:
        """Microseconds of a scale for each token of [tokens, channels], beyond what one scale for all takes.

        They are found once, and multiplied to the output of each product.
        """
        outputs = tokens * sum(columns) * FLOATS_READ_AND_WRITTEN / self.traffic
        return self.token_call + tokens * channels / self.token_elements + outputs

    def _rates(self, kernel: Kernel) -> tuple[float, float]:
        """Those at one row and at `ROWS`."""
        rates: dict[Kernel, tuple[float, float]] = {
            "float": (self.float_row_macs, self.float_macs),
            "integer": (self.integer_row_macs, self.integer_macs),
            "block": (self.block_row_macs, self.block_macs),
            "block4": (self.block4_row_macs, self.block4_macs),
            "narrow": (self.narrow_macs, self.narrow_macs),
        }
        return rates[kernel]


COMPILED = KernelCosts(call=0.0, token_call=0.0)
"""Of runtimes that compile the graph and fuse QuantizeLinear with what is beside it: no call for each."""

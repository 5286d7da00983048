"""What kernels cost: rates of one thread, to weigh one form of a layer against another before either exists.

The figures are of onnxruntime's CPU provider on a Zen 4 core with AVX512-VNNI, 128 rows, weights of
384 x 1536 to 768 x 3072. Only ratios between forms enter a choice; what a plan costs is timed afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelCosts:
    """Rates of one thread.

    Attributes:
        float_macs: Multiply-adds per microsecond of a float product.
        integer_macs: Those of uint8 times int8.
        block_macs: Those of MatMulNBits with 8 bits, many rows.
        narrow_macs: Those of a float product with fewer than 16 rows or columns in its weight.
        traffic: Bytes per microsecond of an elementwise operator, read and written.
        call: Microseconds of any operator, however small.
    """

    float_macs: float = 48_000.0
    integer_macs: float = 170_000.0
    block_macs: float = 85_000.0
    narrow_macs: float = 20_000.0
    traffic: float = 40_000.0
    call: float = 1.5

    def elementwise(self, tokens: int, channels: int, bytes_each: float = 8.0) -> float:
        """Microseconds of one pass over [tokens, channels]; 8 bytes: a float read and one written."""
        return self.call + tokens * channels * bytes_each / self.traffic

    def product(self, tokens: int, channels: int, columns: int, macs: float) -> float:
        """Microseconds of a product [tokens, channels] x [channels, columns] at a rate."""
        return self.call + tokens * channels * columns / macs


COMPILED = KernelCosts(call=0.0)
"""Of runtimes that compile the graph and fuse QuantizeLinear with what is beside it: no call for each."""

"""What kernels cost on this machine: measured once, in a few seconds, and kept.

Only ratios between forms of a layer enter a choice. One thread is timed, by the clock of what it computes: so
a busy machine says about what a quiet one does; two threads that wait for each other would take several
times as long. Rates are kept in steps of a fifth, so that noise seldom changes a plan.

Products with many rows find their weights in the caches, which matters little to them. Those with one row
find them in memory: what is run token by token is larger than the caches, mostly.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from onnxq.errors import OnnxqError
from onnxq.files.folders import platform_cache
from onnxq.files.records import read_record, write_record
from onnxq.runtime.machine import Machine
from onnxq.targets import probes
from onnxq.targets.costs import FLOATS_READ_AND_WRITTEN, ROWS, KernelCosts

VERSION = 3
"""Raised when what is measured changes."""
CHANNELS, WIDE = 768, 1536
_BLOCK, _NARROW = 64, 8
_STEP = 1.2
_LEAST_CALL = 0.2
"""Microseconds; a clock's noise may say less."""


def costs_of(machine: Machine, folder: Path | None = None) -> KernelCosts:
    """What kernels cost on `machine`, which is this one: kept from an earlier time, or measured now.

    Args:
        machine: This machine, as `read_machine` gives it.
        folder: Where results are kept; None for the platform's cache folder.

    Returns:
        The table's figures (`KernelCosts()`) where the runtime refuses to be measured, or integers came out
        slower than floats, which says more of the moment than of the machine.
    """
    path = (folder or platform_cache() / "kernels") / f"{_key(machine)}.json"
    kept = _read(path)
    if kept is not None:
        return kept
    try:
        found = measure_costs()
    except OnnxqError:
        return KernelCosts()
    if found.integer_macs < found.float_macs:
        return KernelCosts()
    _keep(path, found)
    return found


def measure_costs() -> KernelCosts:
    """Time each kernel on this machine; takes a few seconds.

    Raises:
        BackendError: The runtime is missing, or has no such kernel.
    """
    call = max(probes.microseconds_a_link(_scaled(16), 1, 16), _LEAST_CALL)
    wide = probes.microseconds_a_link(_scaled(WIDE), ROWS, WIDE)
    traffic = ROWS * WIDE * FLOATS_READ_AND_WRITTEN / max(wide - call, 0.1)
    one_token, tokens = (
        probes.microseconds_a_link(probes.scaled_by_token, rows, CHANNELS) for rows in (1, ROWS)
    )
    few, many = (_Products(rows, call, traffic) for rows in (1, ROWS))
    return _rounded(
        KernelCosts(
            float_macs=many.floats(),
            integer_macs=many.integers(),
            block_macs=many.blocks(8),
            block4_macs=many.blocks(4),
            narrow_macs=many.narrow(),
            float_row_macs=few.floats(),
            integer_row_macs=few.integers(),
            block_row_macs=few.blocks(8),
            block4_row_macs=few.blocks(4),
            traffic=traffic,
            token_elements=ROWS * CHANNELS / max(tokens - one_token, 0.1),
            token_call=max(one_token, call),
            call=call,
        )
    )


@dataclass(frozen=True)
class _Products:
    """Kernels at some number of rows, in multiply-adds in a microsecond, what a call takes not counted."""

    rows: int
    call: float
    traffic: float

    def floats(self) -> float:
        return self._rate(self._us(lambda chain, value: probes.float_product(chain, value, CHANNELS)))

    def integers(self) -> float:
        rounding = self.call + self.rows * CHANNELS * 5 / self.traffic
        return self._rate(
            self._us(lambda chain, value: probes.integer_product(chain, value, CHANNELS)) - rounding
        )

    def blocks(self, bits: int) -> float:
        return self._rate(
            self._us(lambda chain, value: probes.block_product(chain, value, CHANNELS, bits, _BLOCK))
        )

    def narrow(self) -> float:
        taken = self._us(lambda chain, value: probes.narrow_product(chain, value, CHANNELS, _NARROW))
        return self._rate(taken - self.call, 2 * CHANNELS * _NARROW)

    def _us(self, link: probes.Link) -> float:
        return probes.microseconds_a_link(link, self.rows, CHANNELS, cold=self.rows == 1)

    def _rate(self, taken: float, weights: int = CHANNELS * CHANNELS) -> float:
        return self.rows * weights / max(taken - self.call, 0.1)


def _scaled(channels: int) -> probes.Link:
    return lambda chain, value: probes.scaled(chain, value, channels)


def _rounded(costs: KernelCosts) -> KernelCosts:
    steps = {name: round(math.log(value, _STEP)) for name, value in asdict(costs).items()}
    return KernelCosts(**{name: float(f"{_STEP**step:.3g}") for name, step in steps.items()})


def _key(machine: Machine) -> str:
    """Of everything that decides what a kernel costs."""
    runtime = machine.runtime.version if machine.runtime is not None else ""
    parts = [VERSION, machine.architecture, machine.cpu, *machine.features, runtime]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]


def _read(path: Path) -> KernelCosts | None:
    """Costs kept in a file; None where there is none, or one that was damaged."""
    given = read_record(path)
    names = {each.name for each in fields(KernelCosts)}
    if not isinstance(given, dict) or set(given) != names:
        return None
    sound = all(isinstance(value, float) and math.isfinite(value) and value > 0 for value in given.values())
    return KernelCosts(**given) if sound else None


def _keep(path: Path, costs: KernelCosts) -> None:
    """Write them whole or not at all; a folder that cannot be written keeps nothing."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, asdict(costs))

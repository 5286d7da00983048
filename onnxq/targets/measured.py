"""What kernels cost on this machine: measured once, in a few seconds, and kept.

Only ratios between forms of a layer enter a choice. One thread is timed, by the clock of what it computes: so
a busy machine says about what a quiet one does; two threads that wait for each other would take several
times as long. Rates are kept in steps of a fifth, so that noise seldom changes a plan.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

from onnxq.errors import OnnxqError
from onnxq.files.folders import platform_cache
from onnxq.files.records import read_record, write_record
from onnxq.runtime.machine import Machine
from onnxq.targets import probes
from onnxq.targets.costs import KernelCosts

VERSION = 2
"""Raised when what is measured changes."""
ROWS, CHANNELS, WIDE = 128, 768, 1536
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

    def us(link: probes.Link, rows: int = ROWS, channels: int = CHANNELS) -> float:
        return probes.microseconds_a_link(link, rows, channels)

    call = max(us(lambda chain, value: probes.scaled(chain, value, 16), 1, 16), _LEAST_CALL)
    wide = us(lambda chain, value: probes.scaled(chain, value, WIDE), ROWS, WIDE)
    traffic = ROWS * WIDE * 8 / max(wide - call, 0.1)
    macs = ROWS * CHANNELS * CHANNELS
    quantize = call + ROWS * CHANNELS * 5 / traffic
    narrow = us(lambda chain, value: probes.narrow_product(chain, value, CHANNELS, _NARROW))

    def rate(taken: float, work: float = macs) -> float:
        return work / max(taken - call, 0.1)

    def block(bits: int) -> float:
        return us(lambda chain, value: probes.block_product(chain, value, CHANNELS, bits, _BLOCK))

    return _rounded(
        KernelCosts(
            float_macs=rate(us(lambda chain, value: probes.float_product(chain, value, CHANNELS))),
            integer_macs=rate(
                us(lambda chain, value: probes.integer_product(chain, value, CHANNELS)) - quantize
            ),
            block_macs=rate(block(8)),
            narrow_macs=rate(narrow - call, 2 * ROWS * CHANNELS * _NARROW),
            traffic=traffic,
            call=call,
        )
    )


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

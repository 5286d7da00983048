"""The machine that a model will run on, as data: processor, memory, runtime."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

# Instruction sets that decide which low-precision kernel runs, as Linux names them.
FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx_vnni_int8",
    "amx_int8",
    "amx_bf16",
    "avx512_bf16",
    "asimddp",
    "i8mm",
    "sve",
    "sme",
)
# What macOS calls the same things (sysctl hw.optional.arm.*).
_APPLE = {"FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_SME": "sme"}
_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Runtime:
    """The installed ONNX Runtime.

    Attributes:
        version: E.g. ``"1.32.0"``.
        build: Its own description of how it was built.
        providers: Execution providers it has, most wanted first.
        packages: Distributions that install it; more than one overwrite each other's files.
    """

    version: str
    build: str
    providers: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """What there is to compute with.

    Attributes:
        system: E.g. ``"Linux"``.
        architecture: ``"x86_64"``, ``"aarch64"`` or what the system says.
        cpu: The processor's model name.
        features: Those of `FEATURES` that the processor has, in that order.
        cores: Physical cores.
        usable: Logical processors that this process may use.
        quota: Processors' worth of time that a container grants; None if it grants them all.
        memory_bytes: Physical memory, or a container's limit if that is lower.
        runtime: The installed ONNX Runtime; None if there is none.
    """

    system: str
    architecture: str
    cpu: str
    features: tuple[str, ...]
    cores: int
    usable: int
    quota: float | None
    memory_bytes: int
    runtime: Runtime | None

    def has(self, *features: str) -> bool:
        """Whether the processor has any of these features."""
        return not set(features).isdisjoint(self.features)


def read_machine(root: Path = Path("/")) -> Machine:
    """Look at this machine.

    Args:
        root: Where the system's own files (``proc``, ``sys``) are; another folder stands for another machine.
    """
    description = _text(root / "proc/cpuinfo")
    architecture = platform.machine().lower()
    return Machine(
        system=platform.system(),
        architecture=_ARCHITECTURES.get(architecture, architecture),
        cpu=_cpu_name(description),
        features=_features(description),
        cores=len(_one_processor_a_core(root)) or os.cpu_count() or 1,
        usable=len(_allowed()),
        quota=_quota(root),
        memory_bytes=_memory(root),
        runtime=read_runtime(),
    )


def read_runtime() -> Runtime | None:
    """The installed ONNX Runtime, or None."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return Runtime(
        version=onnxruntime.__version__,
        build=onnxruntime.get_build_info(),
        providers=tuple(onnxruntime.get_available_providers()),
        packages=tuple(name for name in _PACKAGES if _installed(name)),
    )


def processors_for(threads: int, root: Path = Path("/")) -> list[int]:
    """Processors to pin a process of so many threads to: of different cores first.

    Returns:
        Their numbers; empty where pinning makes no sense.
    """
    allowed = _allowed()
    if not 0 < threads <= len(allowed):
        return []
    apart = [each for each in _one_processor_a_core(root) if each in allowed]
    return sorted([*apart, *(each for each in allowed if each not in apart)][:threads])


def _installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _features(description: str) -> tuple[str, ...]:
    words: set[str] = set()
    for line in re.findall(r"^(?:flags|Features)\s*:(.*)$", description, re.MULTILINE):
        words.update(line.split())
    if not description and platform.system() == "Darwin":
        words.update(linux for apple, linux in _APPLE.items() if _sysctl(f"hw.optional.arm.{apple}") == "1")
    return tuple(feature for feature in FEATURES if feature in words)


def _cpu_name(description: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", description, re.MULTILINE)
    if found:
        return found[1].strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"


def _one_processor_a_core(root: Path) -> list[int]:
    """The first logical processor of each physical core; empty where the system does not tell."""
    first = set()
    for file in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
        first.add(min(_expand(_text(file))))
    return sorted(first)


def _expand(ranges: str) -> Iterable[int]:
    """The numbers of a list such as "0,2-4"."""
    for part in ranges.strip().split(","):
        low, _, high = part.partition("-")
        yield from range(int(low), int(high or low) + 1)


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _quota(root: Path) -> float | None:
    """Processors granted by a control group: version 2's cpu.max or version 1's quota and period."""
    parts = _text(root / "sys/fs/cgroup/cpu.max").split()
    if not parts:
        folder = root / "sys/fs/cgroup/cpu"
        parts = [_text(folder / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])


def _memory(root: Path) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    total = int(found[1]) << 10 if found else int(_sysctl("hw.memsize") or 0)
    limits = [
        _text(root / "sys/fs/cgroup" / name).strip()
        for name in ("memory.max", "memory/memory.limit_in_bytes")
    ]
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])


def _sysctl(name: str) -> str:
    if platform.system() != "Darwin":
        return ""
    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

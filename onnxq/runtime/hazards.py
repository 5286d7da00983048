"""What is known to go wrong on a machine or with a version of ONNX Runtime, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxq.runtime.machine import Machine


@dataclass(frozen=True)
class Hazard:
    """Something to know before trusting a model or a figure on this machine.

    Attributes:
        slug: A stable kebab-case word.
        text: What happens.
        remedy: What to do about it.
    """

    slug: str
    text: str
    remedy: str


def hazards_of(machine: Machine) -> list[Hazard]:
    """The known hazards of a machine, the gravest first; told from the data alone, nothing is run."""
    return [hazard for hazard, applies in _TABLE if applies(machine)]


def probe_pad_into_maxpool() -> Hazard | None:
    """Run a padded MaxPool and see whether the runtime folds the padding away, as onnxruntime 1.31 did.

    Raises:
        BackendError: The runtime is missing.
    """
    from onnxq.runtime.session import open_session
    from onnxq.runtime.settings import SessionSettings

    x = {"x": np.full((1, 1, 2, 2), -1, np.float32)}
    literal, optimised = (
        open_session(_padded_maxpool(), SessionSettings(level=level)).run(x)["y"]
        for level in ("disabled", "all")
    )
    if np.array_equal(literal, optimised):
        return None
    return Hazard(
        "pad-into-maxpool",
        "this onnxruntime folds Pad with zeros into MaxPool, whose own padding is minus infinity: wrong "
        "results where values are negative",
        "another version of onnxruntime; models without Pad in front of MaxPool are not affected",
    )


def _padded_maxpool() -> bytes:
    """Pad(1 on each side, zeros) -> MaxPool 2x2 of a 1x1x2x2 image."""
    import onnx

    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        probe (float[1, 1, 2, 2] x) => (float[1, 1, 3, 3] y) <int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}> {
            padded = Pad(x, pads)
            y = MaxPool<kernel_shape = [2, 2]>(padded)
        }"""
    )
    return bytes(model.SerializeToString())


def _is_x86(machine: Machine) -> bool:
    return machine.architecture == "x86_64"


def _has_vnni(machine: Machine) -> bool:
    return machine.has("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")


def _saturates(machine: Machine) -> bool:
    return _is_x86(machine) and not _has_vnni(machine)


def _older_than(machine: Machine, version: tuple[int, int]) -> bool:
    if machine.runtime is None:
        return False
    parts = machine.runtime.version.split(".")[:2]
    return all(part.isdigit() for part in parts) and tuple(map(int, parts)) < version


def _weak_arm(machine: Machine) -> bool:
    return machine.architecture == "aarch64" and bool(machine.features) and not machine.has("asimddp")


def _two_runtimes(machine: Machine) -> bool:
    return machine.runtime is not None and len(machine.runtime.packages) > 1


def _few_processors(machine: Machine) -> bool:
    return machine.quota is not None and machine.quota < machine.usable


_TABLE: tuple[tuple[Hazard, Callable[[Machine], bool]], ...] = (
    (
        Hazard(
            "no-onnxruntime",
            "onnxruntime is not installed: nothing can be run, verified or timed",
            'pip install "onnxq[cpu]"',
        ),
        lambda machine: machine.runtime is None,
    ),
    (
        Hazard(
            "two-runtimes",
            "several onnxruntime packages are installed; they overwrite each other's files",
            "uninstall all of them, then install one",
        ),
        _two_runtimes,
    ),
    (
        Hazard(
            "saturation",
            "without VNNI, products of uint8 and int8 are summed in pairs in 16 bits, which saturates",
            "weights of 7 bits (target x86-avx2)",
        ),
        _saturates,
    ),
    (
        Hazard(
            "no-dot-product",
            "this Arm processor has no 8-bit dot product; INT8 gains little",
            "measure before you deploy",
        ),
        _weak_arm,
    ),
    (
        Hazard(
            "few-processors",
            "the container grants less processor time than there are processors; more threads only stall",
            "set threads to the quota",
        ),
        _few_processors,
    ),
    (
        Hazard(
            "vector-scale",
            "this onnxruntime refuses models with a per-channel constant between DequantizeLinear and "
            "QuantizeLinear at an Add or Mul",
            "onnxruntime 1.32 or newer, or keep such constants float",
        ),
        lambda machine: _older_than(machine, (1, 32)),
    ),
    (
        Hazard(
            "x64-precision",
            "session.x64quantprecision turns int8 weights into uint8, which is needless and slower with VNNI",
            "leave the option off on this machine",
        ),
        lambda machine: _is_x86(machine) and _has_vnni(machine),
    ),
    (
        Hazard("signed-activations", "products of int8 and int8 run in a scalar kernel", "uint8 activations"),
        lambda machine: _is_x86(machine) and not machine.has("avx_vnni_int8"),
    ),
    (
        Hazard(
            "scalar-skip-norm",
            "the CPU kernel of SkipLayerNormalization, which the runtime fuses by itself, is scalar",
            "open models with SkipLayerNormFusion and BiasSkipLayerNormFusion disabled",
        ),
        lambda machine: machine.runtime is not None,
    ),
)

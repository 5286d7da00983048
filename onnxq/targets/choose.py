"""The target of a machine, and the target of a name."""

from __future__ import annotations

import difflib

from onnxq.errors import UsageProblem
from onnxq.runtime.machine import Machine
from onnxq.targets.catalogue import TARGETS
from onnxq.targets.target import Target

_BY_FEATURE = {
    "x86_64": (
        ("x86-amx", ("amx_int8",)),
        ("x86-vnni", ("avx512_vnni", "avx_vnni", "avx_vnni_int8")),
        ("x86-avx2", ()),
    ),
    "aarch64": (("arm-i8mm", ("i8mm",)), ("arm-dot", ("asimddp",))),
}
"""Of each architecture, targets and the features that any one of calls for it, the best first."""


def detect(machine: Machine) -> Target:
    """The target that fits a machine's processor; plain Q/DQ where nothing is known about it.

    Graphics processors and other runtimes are never guessed: whoever wants them names them.
    """
    for name, features in _BY_FEATURE.get(machine.architecture, ()):
        if not features or machine.has(*features):
            return TARGETS[name]
    return TARGETS["qdq"]


def find(name: str) -> Target:
    """The target of a name.

    Raises:
        UsageProblem: There is no such target; the hint names the nearest.
    """
    if name in TARGETS:
        return TARGETS[name]
    near = difflib.get_close_matches(name.lower(), TARGETS, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise UsageProblem(
        f"no target {name!r}", hint=f"{guess}targets: {', '.join(TARGETS)}", slug="unknown-target"
    )

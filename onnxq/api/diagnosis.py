"""The state of this machine and this installation."""

from __future__ import annotations

import importlib.util

from onnxq.api import records
from onnxq.report.results import Diagnosis
from onnxq.report.rows import Check, Status
from onnxq.runtime import Machine, hazards_of, probe_pad_into_maxpool, read_machine
from onnxq.targets import detect

_OPTIONAL = (
    ("torch", "learned methods and torch exports", "torch"),
    ("onnx_graphsurgeon", "passes written for graphsurgeon", "graphsurgeon"),
    ("tokenizers", "text as calibration data", "text"),
    ("PIL", "images as calibration data", "images"),
)


def doctor() -> Diagnosis:
    """Processor, runtime, optional packages, and known hazards of this combination."""
    machine = read_machine()
    checks = [_runtime(machine), _processor(machine), *_hazards(machine)]
    checks += [_package(*each) for each in _OPTIONAL]
    return Diagnosis(records.machine_record(records.usable_threads(None)), tuple(checks))


def _runtime(machine: Machine) -> Check:
    if machine.runtime is None:
        return Check("onnxruntime", "fail", "not installed", 'pip install "onnxq[cpu]"')
    providers = ", ".join(machine.runtime.providers)
    return Check("onnxruntime", "ok", f"{machine.runtime.version}; {providers}")


def _processor(machine: Machine) -> Check:
    target = detect(machine)
    features = ", ".join(machine.features) or "no low-precision instructions known"
    status: Status = "ok" if target.provider == "cpu" and target.weight_bits == 8 else "warn"
    way_out = "" if status == "ok" else "INT8 gains less here; measure before you ship"
    return Check("processor", status, f"{target.title} ({target.name}): {features}", way_out)


def _hazards(machine: Machine) -> list[Check]:
    found = list(hazards_of(machine))
    if machine.runtime is not None:
        probed = probe_pad_into_maxpool()
        found += [probed] if probed is not None else []
    return [Check(hazard.slug, "warn", hazard.text, hazard.remedy) for hazard in found]


def _package(module: str, purpose: str, extra: str) -> Check:
    if importlib.util.find_spec(module) is not None:
        return Check(module, "ok", f"installed: {purpose}")
    return Check(module, "warn", f"not installed: no {purpose}", f'pip install "onnxq[{extra}]"')

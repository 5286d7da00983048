"""How a model is opened: the settings of a session, and the execution providers by their short names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Level = Literal["disabled", "basic", "extended", "all"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


@dataclass(frozen=True)
class SessionSettings:
    """How a model is opened.

    Attributes:
        threads: Threads inside one operator; operators run one after the other. 0 lets the runtime choose.
        level: How far the runtime optimises the graph; "all" is its own default, "disabled" runs it as it is.
        provider: A short name of `PROVIDERS` or the runtime's own name of an execution provider.
        provider_options: Its options, e.g. ``("device_id", "1")``.
        disabled_optimizers: The runtime's graph transformers to leave out, e.g. ``"SkipLayerNormFusion"``.
        config: Session configuration entries, e.g. ``("session.x64quantprecision", "1")``.
        taps: Values of the main graph that become further outputs, by name.
        profile_to: Folder that receives a trace of every operator run; None for no trace.
        optimized_to: File that receives the graph as the runtime rewrote it; None for no file.
    """

    threads: int = 1
    level: Level = "all"
    provider: str = "cpu"
    disabled_optimizers: tuple[str, ...] = ()
    config: tuple[tuple[str, str], ...] = ()
    taps: tuple[str, ...] = ()
    profile_to: Path | None = None
    optimized_to: Path | None = None
    provider_options: tuple[tuple[str, str], ...] = ()


def to_fields(settings: SessionSettings) -> dict[str, Any]:
    """Settings as a tree that a frame carries."""
    fields = dict(vars(settings))
    for name in ("profile_to", "optimized_to"):
        fields[name] = None if fields[name] is None else str(fields[name])
    return fields


def from_fields(fields: dict[str, Any]) -> SessionSettings:
    """The inverse of `to_fields`."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    for name in ("config", "provider_options"):
        fields[name] = tuple((key, value) for key, value in fields.get(name, ()))
    for name in ("profile_to", "optimized_to"):
        fields[name] = None if fields.get(name) is None else Path(fields[name])
    return SessionSettings(**fields)

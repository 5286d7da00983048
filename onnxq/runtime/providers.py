"""Execution providers by their short names, and how to get one that is missing."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.errors import BackendError
from onnxq.runtime.settings import PROVIDERS

EXCLUSIVE = (
    "onnxruntime, onnxruntime-gpu and onnxruntime-openvino exclude one another: keep one of them installed"
)
_PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "directml": "onnxruntime-directml",
    "qnn": "onnxruntime-qnn",
    "migraphx": "onnxruntime-migraphx",
    "webgpu": "onnxruntime-webgpu",
}
_EXTRAS = {"onnxruntime-gpu": '"onnxq[gpu]"'}


def provider_name(wanted: str, available: Sequence[str], where: str = "") -> str:
    """The runtime's own name of a provider.

    Args:
        wanted: A short name of `PROVIDERS`, or the runtime's own.
        available: What the installed runtime has.
        where: Another machine that it is installed on; "" for this one.

    Raises:
        BackendError: It is not there ("no-provider"); the hint names those that are, and what to install.
    """
    name = PROVIDERS.get(wanted.lower(), wanted)
    if name in available:
        return name
    usable = ", ".join(short_name(each) for each in available)
    hint = f"available {f'on {where}' if where else 'here'}: {usable}"
    package = _PACKAGES.get(short_name(name))
    if package:
        command = f"pip install {package if where else _EXTRAS.get(package, package)}"
        hint += f"; {command} brings it. {EXCLUSIVE}"
    elif wanted.lower() not in PROVIDERS:
        hint += f"; short names: {', '.join(PROVIDERS)}"
    else:
        hint += "; it comes with a build of onnxruntime for it"
    told = f"the onnxruntime of {where}" if where else "this onnxruntime"
    raise BackendError(f"no execution provider {wanted!r} in {told}", hint=hint, slug="no-provider")


def short_name(provider: str) -> str:
    """The short name of a provider, e.g. "cuda"; what the runtime calls it where it has none."""
    short = {long: word for word, long in PROVIDERS.items()}
    return short.get(provider, provider)


def not_started(provider: str, where: str = "") -> BackendError:
    """A provider that is installed and gave way to the CPU when a model was opened."""
    return BackendError(
        f"{provider} is installed{f' on {where}' if where else ''} and could not be started, "
        "so the model would run on the CPU",
        hint="its driver or libraries are missing or too old",
        slug="provider-failed",
    )

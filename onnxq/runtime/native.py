"""A session of ONNX Runtime on bytes or a file: one thread, silent, the same bytes for the same inputs.

This is all that a worker process needs, and it imports nothing that knows graphs: a worker starts in a third
of the time. `onnxq.runtime.session` opens models in memory on top of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np

from onnxq.errors import BackendError
from onnxq.runtime.providers import EXCLUSIVE, not_started, provider_name
from onnxq.runtime.settings import PROVIDERS, SessionSettings
from onnxq.runtime.tensors import array_of, dtype_of, ort_value_of, plain

Feeds = Mapping[str, Any]

_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_SILENT = 4  # FATAL: whatever goes wrong arrives as an exception, saying it twice on stderr helps nobody
_NODE = re.compile(r"(?:node with name|Name:|Node:|Node,?) ?\(?['\"]?(?P<name>[^'\"\s),]+)")


@dataclass(frozen=True)
class Port:
    """An input or output of a session.

    Attributes:
        name: Name of the value.
        dtype: Element type as numpy knows it; object for strings and for what is no tensor.
        shape: An int, a symbol or None (unknown) for each axis.
        kind: The type in the runtime's words, e.g. ``"tensor(float)"``.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    kind: str


class Session:
    """A model that is open in ONNX Runtime. Made by `open_native`."""

    def __init__(self, native: Any, weights: Sequence[Any] = ()) -> None:
        self.native = native
        self._weights = weights  # the runtime may read them where they are as long as it lives
        self.inputs = tuple(_port_of(argument) for argument in native.get_inputs())
        self.outputs = tuple(_port_of(argument) for argument in native.get_outputs())
        self._overridable = {argument.name for argument in native.get_overridable_initializers()}
        self._plain = all(plain(port.kind) for port in (*self.inputs, *self.outputs))

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once.

        Args:
            feeds: An array for each input, by name.
            outputs: Names of the outputs to compute; all of them if None.

        Returns:
            The outputs by name, in the order asked for.

        Raises:
            BackendError: A feed is missing, unknown or does not fit ("bad-feed"), or an operator failed
                ("run-failed").
        """
        self._check_names(feeds)
        names = [port.name for port in self.outputs] if outputs is None else list(outputs)
        try:
            found = self.native.run(names, dict(feeds)) if self._plain else self._run_values(feeds, names)
        except Exception as error:  # the runtime raises a dozen unrelated classes
            raise refusal(error, "run") from None
        return dict(zip(names, found, strict=True))

    def _run_values(self, feeds: Feeds, names: Sequence[str]) -> list[Any]:
        """Run with element types that the runtime's numpy bridge does not know, such as bfloat16."""
        kinds = {port.name: port.kind for port in self.inputs}
        values = {name: ort_value_of(array, kinds[name]) for name, array in feeds.items()}
        return [array_of(value) for value in self.native.run_with_ort_values(names, values)]

    def _check_names(self, feeds: Feeds) -> None:
        wanted = {port.name for port in self.inputs}
        missing, unknown = sorted(wanted - feeds.keys()), sorted(feeds.keys() - wanted - self._overridable)
        if missing or unknown:
            parts = [f"no array for {missing}"] * bool(missing) + [f"no input named {unknown}"] * bool(
                unknown
            )
            raise BackendError(
                "; ".join(parts), hint=f"the model's inputs are {sorted(wanted)}", slug="bad-feed"
            )


def open_native(
    source: str | bytes, settings: SessionSettings, weights: Mapping[str, np.ndarray] | None = None
) -> Session:
    """Open a model that is a file or the bytes of one; `SessionSettings.taps` are not looked at.

    Args:
        source: A path, or the bytes of a model without external data.
        settings: Threads, optimisation level, provider and more.
        weights: Initializers that the bytes were left without, by name; read where they lie.

    Raises:
        BackendError: The runtime is missing ("no-onnxruntime"), lacks the provider ("no-provider") or cannot
            start it ("provider-failed"), or refuses the model ("refused"), with the node where it names one.
    """
    runtime = import_onnxruntime()
    available = runtime.get_available_providers()
    provider = provider_name(settings.provider, available)
    held = [runtime.OrtValue.ortvalue_from_numpy(array) for array in (weights or {}).values()]
    try:
        options = _options_of(runtime, settings)
        if weights:
            options.add_external_initializers(list(weights), held)
        native = runtime.InferenceSession(
            source,
            options,
            providers=_with_fallback(provider, settings, available),
            disabled_optimizers=list(settings.disabled_optimizers),
            enable_fallback=0,  # else an error of the provider ends in a session of other settings
        )
    except Exception as error:  # the runtime raises a dozen unrelated classes
        raise refusal(error, "load") from None
    if provider not in native.get_providers():
        raise not_started(provider)
    return Session(native, held)


def import_onnxruntime() -> ModuleType:
    """The onnxruntime module.

    Raises:
        BackendError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"onnxruntime cannot be imported: {error}",
            hint=f'pip install "onnxq[cpu]" (GPU: "onnxq[gpu]"); {EXCLUSIVE}',
            slug="no-onnxruntime",
        ) from None
    module: ModuleType = onnxruntime
    return module


def refusal(error: Exception, stage: Literal["load", "run"]) -> BackendError:
    """What the runtime complained of, in one line, with the node it names."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    code = re.match(r"\[ONNXRuntimeError\] : \d+ : (?P<code>\w+) : ", text)
    message = text[code.end() :] if code else text
    if stage == "run" and code and code["code"] == "INVALID_ARGUMENT" and "status code" not in message:
        return BackendError(f"the inputs do not fit the model: {message}", slug="bad-feed")
    node = _NODE.search(message)
    where = f" at node {node['name']!r}" if node else ""
    verb = "refuses the model" if stage == "load" else "failed while running the model"
    return BackendError(
        f"onnxruntime {verb}{where}: {message}", slug="refused" if stage == "load" else "run-failed"
    )


def _options_of(runtime: ModuleType, settings: SessionSettings) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _SILENT
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, _LEVELS[settings.level])
    for key, value in settings.config:
        options.add_session_config_entry(key, value)
    if settings.profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(settings.profile_to / "trace")
    if settings.optimized_to is not None:
        options.optimized_model_filepath = str(settings.optimized_to)
    return options


def _with_fallback(
    provider: str, settings: SessionSettings, available: Sequence[str]
) -> list[tuple[str, dict[str, str]]]:
    """`provider` with its options, and for the nodes it does not take the CPU, or CUDA before it."""
    others = [PROVIDERS["cpu"]]
    if provider == PROVIDERS["tensorrt"] and PROVIDERS["cuda"] in available:
        others.insert(0, PROVIDERS["cuda"])
    own = (provider, dict(settings.provider_options))
    return [own, *((other, {}) for other in others if other != provider)]


def _port_of(argument: Any) -> Port:
    return Port(argument.name, dtype_of(argument.type), tuple(argument.shape), argument.type)

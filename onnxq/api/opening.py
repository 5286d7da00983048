"""MODEL.session.json: what the runtime has to be told when it opens MODEL.onnx, where there is anything.

The file is data that may come from anywhere, and options of a runtime can load libraries and write files. So
what is read is held against the options that onnxq itself gives (`onnxq.targets`); others are refused.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.errors import OutputError, UsageProblem
from onnxq.files.records import read_record, write_record
from onnxq.ir.linear import Linear, find_linear
from onnxq.ir.walk import nodes
from onnxq.runtime import SessionSettings, open_session
from onnxq.runtime.native import Session
from onnxq.targets import TARGETS, Target
from onnxq.targets.opening import Kind, OpeningOption

SCHEMA = "onnxq/session-1"
_KEYS: dict[Kind, str] = {
    "provider option": "provider_options",
    "session config": "session_config",
    "disabled optimizer": "disabled_optimizers",
}


@dataclass(frozen=True)
class Opening:
    """How a model wants to be opened.

    Attributes:
        provider: Short name of the execution provider.
        options: What it has to be told.
    """

    provider: str = "cpu"
    options: tuple[OpeningOption, ...] = ()

    @classmethod
    def of(cls, model: ir.Model, target: Target) -> Opening:
        """What `model`, made for `target`, needs; no options where it needs nothing."""
        floats = any(isinstance(find_linear(node), Linear) for node in nodes(model))
        options = tuple(each for each in target.opening if floats or not each.float_linears)
        return cls("cpu" if target.provider == "any" else target.provider, options)

    def settings(self, threads: int = 0) -> SessionSettings:
        """The same as settings of a session."""
        return SessionSettings(
            threads=threads,
            provider=self.provider,
            provider_options=tuple((each.name, each.value) for each in self._of("provider option")),
            config=tuple((each.name, each.value) for each in self._of("session config")),
            disabled_optimizers=tuple(each.name for each in self._of("disabled optimizer")),
        )

    def record(self) -> dict[str, Any]:
        """The same as what the file holds: mappings as the runtime takes them, and why."""
        return {
            "schema": SCHEMA,
            "provider": self.provider,
            **{key: {each.name: each.value for each in self._of(kind)} for kind, key in _KEYS.items()},
            "reasons": {
                each.name: {"reason": each.reason, "known_from": each.known} for each in self.options
            },
        }

    def _of(self, kind: Kind) -> tuple[OpeningOption, ...]:
        return tuple(each for each in self.options if each.kind == kind)


def session(path: str | Path, *, threads: int = 0) -> Session:
    """Open a model as the session file beside it says, or as the runtime does by default if there is none.

    Args:
        path: The model.
        threads: Threads inside one operator; 0 lets the runtime choose.

    Returns:
        A session whose `run(feeds)` gives the outputs by name; `native` is onnxruntime's own.

    Raises:
        UsageProblem: The session file is damaged, or asks for what onnxq never asks for.
        BackendError: The runtime lacks the provider, or refuses the model.
    """
    found = read_opening(path) or Opening()
    return open_session(Path(path), found.settings(threads))


def path_beside(model: str | Path) -> Path:
    """Where the session file of a model is: ``model.session.json`` beside ``model.onnx``."""
    return Path(model).with_suffix(".session.json")


def write_opening(opening: Opening, model: str | Path) -> Path | None:
    """Write the session file of a model, or take away that of the model which was there before.

    Returns:
        Where it is; None where nothing has to be told.

    Raises:
        OutputError: It could not be written.
    """
    path = path_beside(model)
    try:
        if opening.options:
            write_record(path, opening.record())
            return path
        if _is_ours(read_record(path)):
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", slug="not-writable") from error
    return None


def read_opening(model: str | Path) -> Opening | None:
    """What the session file of a model says; None where there is none.

    Raises:
        UsageProblem: It is damaged, or asks for what onnxq never asks for.
    """
    path = path_beside(model)
    if not path.exists():
        return None
    record = read_record(path)
    told: list[tuple[Kind, str, str]] = []
    with suppress(AttributeError, KeyError, TypeError):
        for kind, key in _KEYS.items():
            told += [(kind, name, value) for name, value in record[key].items()]
        for target in TARGETS.values():
            known = {(each.kind, each.name, each.value): each for each in target.opening}
            if _is_ours(record) and target.provider == record["provider"] and set(told) <= set(known):
                return Opening(target.provider, tuple(known[each] for each in told))
    raise UsageProblem(
        f"{path} is damaged, or asks for what onnxq never asks for",
        hint="Remove it, or let `onnxq optimize` write it anew; options of your own go to onnxruntime.",
        slug="bad-session-file",
    )


def _is_ours(record: Any) -> bool:
    return isinstance(record, dict) and record.get("schema") == SCHEMA
